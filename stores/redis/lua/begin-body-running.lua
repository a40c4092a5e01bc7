-- Counts a request with a body, when there is room for it. It is counted until it ends, or its lease does. One upload
-- has one: a newer request takes the place of an older one. Can be repeated.
--
-- KEYS 1 running   hash  id of the upload: when the lease ends, and the token of the request
-- ARGV 1 id
--      2 token     of the request
--      3 now       milliseconds since the epoch
--      4 until     when its lease ends, unless it is renewed
--      5 limit     -1 for none
-- Returns 1 when it is counted, 0 when there is no room
-- version 1
local now, limit = tonumber(ARGV[3]), tonumber(ARGV[5])
if limit >= 0 then
  local others = 0
  local running = redis.call('HGETALL', KEYS[1])
  for i = 1, #running, 2 do
    if tonumber(string.match(running[i + 1], '^%d+')) <= now then
      redis.call('HDEL', KEYS[1], running[i])
    elseif running[i] ~= ARGV[1] then
      others = others + 1
    end
  end
  if others + 1 > limit then return 0 end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[4] .. ' ' .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], math.max(1, tonumber(ARGV[4]) - now) * 2)
return 1
