-- The end of an append in one round trip: puts the copy of the upload unless a newer one is there (as put-record),
-- and gives up the lock (as release-lock-wait). The copy is judged by its mark alone: it counts without the lock too.
-- Can be repeated.
--
-- KEYS 1 record       hash  generation, sequence, expiresAt, body
--      2 lock         hash  token, fence, holder, channel, wanted
--      3 wait         hash  token, channel of the newest waiter
-- ARGV 1 generation
--      2 sequence
--      3 expiresAt    milliseconds since the epoch; empty for never
--      4 body         the record as JSON
--      5 token        of the holder
-- Returns {1} when the record was put; {0, expiresAt} of the newer copy when it was not
-- version 1
local result = { 1 }
local old = redis.call('HMGET', KEYS[1], 'generation', 'sequence', 'expiresAt')
local generation, sequence = tonumber(old[1] or '-1'), tonumber(old[2] or '-1')
local newGeneration, newSequence = tonumber(ARGV[1]), tonumber(ARGV[2])
if newGeneration < generation or (newGeneration == generation and newSequence < sequence) then
  result = { 0, old[3] }
else
  redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'sequence', ARGV[2], 'expiresAt', ARGV[3], 'body', ARGV[4])
end

if redis.call('HGET', KEYS[2], 'token') == ARGV[5] then
  redis.call('DEL', KEYS[2])
  local waiter = redis.call('HMGET', KEYS[3], 'token', 'channel')
  if waiter[1] then redis.call('PUBLISH', waiter[2], 'free ' .. waiter[1]) end
end
return result
