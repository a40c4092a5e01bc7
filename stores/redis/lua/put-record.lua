-- Puts the copy of an upload, unless a newer one is there.
-- Can be repeated.
--
-- KEYS 1 record       hash  generation, sequence, expiresAt, body
-- ARGV 1 generation
--      2 sequence
--      3 expiresAt    milliseconds since the epoch; empty for never
--      4 body         the record as JSON
-- Returns {1} when it was put; {0, expiresAt} of the newer copy when it was not
-- version 1
local old = redis.call('HMGET', KEYS[1], 'generation', 'sequence', 'expiresAt')
local generation, sequence = tonumber(old[1] or '-1'), tonumber(old[2] or '-1')
local newGeneration, newSequence = tonumber(ARGV[1]), tonumber(ARGV[2])
if newGeneration < generation or (newGeneration == generation and newSequence < sequence) then
  return { 0, old[3] }
end
redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'sequence', ARGV[2], 'expiresAt', ARGV[3], 'body', ARGV[4])
return { 1 }
