-- Ends the count of a running request, unless a newer one has taken its place. Can be repeated.
--
-- KEYS 1 running   hash  id of the upload: when the lease ends, and the token of the request
-- ARGV 1 id
--      2 token     of the request
-- Returns 1 when it was counted, else 0
-- version 1
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held or string.match(held, '^%d+ (.*)$') ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
return 1
