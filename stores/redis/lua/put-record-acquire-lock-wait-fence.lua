-- Puts the record of a new upload and takes its lock, when nothing is known of it yet; else does nothing. Repeated, it does
-- nothing.
--
-- KEYS 1 record       hash  generation, sequence, expiresAt, body
--      2 lock         hash  token, fence, holder, channel, wanted
--      3 wait         hash  token, channel of the newest waiter
--      4 fence        hash  last (fence that was given out), and more (as acquire-lock-wait-fence)
-- ARGV 1 generation
--      2 sequence
--      3 expiresAt    milliseconds since the epoch; empty for never
--      4 body         the record as JSON
--      5 token        random, of this acquisition
--      6 holder       identity of the caller's process
--      7 channel      of the caller's process
--      8 leaseMs      how long the lock stands without a renewal
--      9 fenceMs      how long the last fence is remembered
-- Returns the fence; nothing when nothing was done
-- version 1
if redis.call('EXISTS', KEYS[1], KEYS[2], KEYS[3], KEYS[4]) > 0 then return false end

redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'sequence', ARGV[2], 'expiresAt', ARGV[3], 'body', ARGV[4])
-- As acquire-lock-wait-fence makes it.
local time = redis.call('TIME')
local fence = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
redis.call('HSET', KEYS[4], 'last', fence)
redis.call('PEXPIRE', KEYS[4], ARGV[9])
redis.call('HSET', KEYS[2], 'token', ARGV[5], 'fence', fence, 'holder', ARGV[6], 'channel', ARGV[7])
redis.call('PEXPIRE', KEYS[2], ARGV[8])
return fence
