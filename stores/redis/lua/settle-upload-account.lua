-- Makes the entry of an upload say what is true of it, and the sums with it. Nothing is refused. What is finished never
-- is open again; an account without entries is removed. Can be repeated.
--
-- KEYS 1 account    hash  open, unfinished, total (sums), and 'u:' name of every upload: 'o ' or 'f ' (open or finished),
--                         and its bytes
-- ARGV 1 name       of the upload
--      2 state      'open', 'atLeast' (open, and what is reserved stays when it is more), 'finished' or 'gone'
--      3 bytes
-- Returns 1 when the upload is open afterwards, else 0
-- version 1
local field = 'u:' .. ARGV[1]
local state, bytes = ARGV[2], tonumber(ARGV[3])
local entry = redis.call('HGET', KEYS[1], field)
local wasOpen, had = 0, 0
if entry then
  had = tonumber(string.sub(entry, 3))
  if string.sub(entry, 1, 1) == 'o' then wasOpen = 1 end
end
local isOpen = 0
if state == 'open' or state == 'atLeast' then
  if entry and wasOpen == 0 then return 0 end
  if state == 'atLeast' then bytes = math.max(bytes, had) end
  isOpen = 1
end
if state == 'gone' then
  if not entry then return 0 end
  bytes = 0
  redis.call('HDEL', KEYS[1], field)
else
  redis.call('HSET', KEYS[1], field, (isOpen == 1 and 'o ' or 'f ') .. string.format('%.0f', bytes))
end
redis.call('HINCRBY', KEYS[1], 'open', isOpen - wasOpen)
redis.call('HINCRBY', KEYS[1], 'unfinished', string.format('%.0f', isOpen * bytes - wasOpen * had))
redis.call('HINCRBY', KEYS[1], 'total', string.format('%.0f', bytes - had))
-- The sums alone.
if redis.call('HLEN', KEYS[1]) <= 3 then redis.call('DEL', KEYS[1]) end
return isOpen
