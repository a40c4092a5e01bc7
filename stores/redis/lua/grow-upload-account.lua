-- Reserves more bytes for an open upload: as many as there is room for, up to `wanted`. What was reserved stays. An entry
-- that was lost is made again. Can be repeated.
--
-- KEYS 1 account    hash  open, unfinished, total (sums), and 'u:' name of every upload: 'o ' or 'f ' (open or finished),
--                         and its bytes
-- ARGV 1 name             of the upload
--      2 least            bytes; with less it is refused
--      3 wanted           bytes
--      4 unfinishedBytes, 5 totalBytes    limits; -1 for none
-- Returns {'granted', bytes}, bytes as text
--         {'refused', limit}
-- version 1
local field = 'u:' .. ARGV[1]
local entry = redis.call('HGET', KEYS[1], field)
if entry and string.sub(entry, 1, 1) == 'f' then return { 'granted', ARGV[3] } end

local least, wanted = tonumber(ARGV[2]), tonumber(ARGV[3])
local held = 0
if entry then held = tonumber(string.sub(entry, 3)) end
local function limit(n)
  local given = tonumber(ARGV[n])
  if given < 0 then return math.huge end
  return given
end
local sums = redis.call('HMGET', KEYS[1], 'unfinished', 'total')
local unfinishedRoom = limit(4) - tonumber(sums[1] or '0') + held
local totalRoom = limit(5) - tonumber(sums[2] or '0') + held
local bytes = math.max(held, math.min(wanted, unfinishedRoom, totalRoom))
if bytes < least then
  if unfinishedRoom < totalRoom then return { 'refused', 'unfinishedBytes' } end
  return { 'refused', 'totalBytes' }
end

local granted = string.format('%.0f', bytes)
if not entry then redis.call('HINCRBY', KEYS[1], 'open', 1) end
if not entry or bytes > held then
  local more = string.format('%.0f', bytes - held)
  redis.call('HSET', KEYS[1], field, 'o ' .. granted)
  redis.call('HINCRBY', KEYS[1], 'unfinished', more)
  redis.call('HINCRBY', KEYS[1], 'total', more)
end
return { 'granted', granted }
