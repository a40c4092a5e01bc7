-- Takes back whatever belongs to a token: the lock, which then is offered to the waiter, or the place of a waiter.
-- Can be repeated; what belongs to another token stays.
--
-- KEYS 1 lock    hash  token, fence, holder, channel, wanted
--      2 wait    hash  token, channel of the newest waiter
--      3 fence   hash  askedAt, before, unused (as acquire-lock-wait)
-- ARGV 1 token   of the acquisition that ends
--      2 how     'unused' when nobody used the lock when it was wanted; else empty
-- Returns 1 when the lock was given up, else 0
-- version 2
local waiter = redis.call('HMGET', KEYS[2], 'token', 'channel')
if waiter[1] == ARGV[1] then
  redis.call('DEL', KEYS[2])
  waiter = {}
end
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
if ARGV[2] == 'unused' and redis.call('HEXISTS', KEYS[1], 'wanted') == 1 then
  redis.call('HSET', KEYS[3], 'askedAt', redis.call('HGET', KEYS[3], 'before') or '0', 'unused', ARGV[1])
end
redis.call('DEL', KEYS[1])
if waiter[1] then redis.call('PUBLISH', waiter[2], 'free ' .. waiter[1]) end
return 1
