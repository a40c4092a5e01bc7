-- Lets the leases of running requests stand for longer. One that was lost is put back, for it does run; one whose place a
-- newer request has taken is not. Can be repeated.
--
-- KEYS 1 running   hash  id of the upload: when the lease ends, and the token of the request
-- ARGV 1 until     when the leases end now; milliseconds since the epoch
--      2 keptMs    how long the account is remembered without another act
--      3...        id and token of each request
-- Returns how many stand
-- version 1
local standing = 0
for i = 3, #ARGV, 2 do
  local held = redis.call('HGET', KEYS[1], ARGV[i])
  if not held or string.match(held, '^%d+ (.*)$') == ARGV[i + 1] then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[1] .. ' ' .. ARGV[i + 1])
    standing = standing + 1
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return standing
