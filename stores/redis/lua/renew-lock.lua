-- Lets a lock stand for another lease, if it is still the caller's, and says whether somebody wants it.
-- Can be repeated.
--
-- KEYS 1 lock      hash  token, fence, holder, channel, wanted
-- ARGV 1 token     of the holder
--      2 leaseMs
-- Returns 'lost', 'held', or 'wanted' (held, and somebody waits)
-- version 1
local held = redis.call('HMGET', KEYS[1], 'token', 'wanted')
if held[1] ~= ARGV[1] then return 'lost' end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if held[2] then return 'wanted' end
return 'held'
