-- Counts a new upload in an account, when there is room for it. What an entry takes is added to the sums in the same
-- step, so of many servers that ask at a time exactly as many get room as there is. Can be repeated: an entry that is
-- there already is admitted, and counted once.
--
-- KEYS 1 account    hash  open, unfinished, total (sums), and 'u:' name of every upload: 'o ' or 'f ' (open or finished),
--                         and its bytes
--      2 creations  hash  second: creations within it
-- ARGV 1 name         of the upload
--      2 bytes        that are reserved for it
--      3 now          milliseconds since the epoch
--      4 openUploads, 5 creationsPerMinute, 6 unfinishedBytes, 7 totalBytes    limits; -1 for none
-- Returns {'admitted'}
--         {'refused', limit}
--         {'refused', 'creationsPerMinute', retryAfterMs}
-- version 1
local field = 'u:' .. ARGV[1]
if redis.call('HEXISTS', KEYS[1], field) == 1 then return { 'admitted' } end

local bytes, now = tonumber(ARGV[2]), tonumber(ARGV[3])
local function limit(n)
  local given = tonumber(ARGV[n])
  if given < 0 then return math.huge end
  return given
end

local windowMs = 60000
local seconds, count = {}, 0
local noted = redis.call('HGETALL', KEYS[2])
for i = 1, #noted, 2 do
  local second = tonumber(noted[i])
  if (second + 1) * 1000 + windowMs > now and second * 1000 <= now + windowMs then
    table.insert(seconds, { second, tonumber(noted[i + 1]) })
    count = count + tonumber(noted[i + 1])
  else
    redis.call('HDEL', KEYS[2], noted[i])
  end
end
local over = count + 1 - limit(5)
if over > 0 then
  table.sort(seconds, function(a, b) return a[1] < b[1] end)
  local retryAfterMs = windowMs
  for _, one in ipairs(seconds) do
    over = over - one[2]
    retryAfterMs = (one[1] + 1) * 1000 + windowMs - now
    if over <= 0 then break end
  end
  return { 'refused', 'creationsPerMinute', retryAfterMs }
end

local sums = redis.call('HMGET', KEYS[1], 'open', 'unfinished', 'total')
local open, unfinished, total = tonumber(sums[1] or '0'), tonumber(sums[2] or '0'), tonumber(sums[3] or '0')
if open + 1 > limit(4) then return { 'refused', 'openUploads' } end
if unfinished + bytes > limit(6) then return { 'refused', 'unfinishedBytes' } end
if total + bytes > limit(7) then return { 'refused', 'totalBytes' } end

redis.call('HINCRBY', KEYS[2], string.format('%.0f', math.floor(now / 1000)), 1)
redis.call('PEXPIRE', KEYS[2], windowMs + 2000)
redis.call('HSET', KEYS[1], field, 'o ' .. ARGV[2])
redis.call('HINCRBY', KEYS[1], 'open', 1)
redis.call('HINCRBY', KEYS[1], 'unfinished', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'total', ARGV[2])
return { 'admitted' }
