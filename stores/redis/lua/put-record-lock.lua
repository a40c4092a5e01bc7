-- A checkpoint: puts the copy of an upload unless a newer one is there (as put-record), and says how its lock stands
-- (as renew-lock, but renewing nothing). The copy is judged by its mark: it counts without the lock too, but makes no
-- record then, for the upload may have been removed. Can be repeated.
--
-- KEYS 1 record       hash  generation, sequence, expiresAt, body
--      2 lock         hash  token, fence, holder, channel, wanted
-- ARGV 1 generation
--      2 sequence
--      3 expiresAt    milliseconds since the epoch; empty for never
--      4 body         the record as JSON
--      5 token        of the holder
-- Returns 'lost', 'held', or 'wanted' (held, and somebody waits)
-- version 2
local old = redis.call('HMGET', KEYS[1], 'generation', 'sequence')
local generation, sequence = tonumber(old[1] or '-1'), tonumber(old[2] or '-1')
local newGeneration, newSequence = tonumber(ARGV[1]), tonumber(ARGV[2])
local held = redis.call('HMGET', KEYS[2], 'token', 'wanted')
local isNewer = newGeneration > generation or (newGeneration == generation and newSequence >= sequence)
if isNewer and (old[1] or held[1] == ARGV[5]) then
  redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'sequence', ARGV[2], 'expiresAt', ARGV[3], 'body', ARGV[4])
end

if held[1] ~= ARGV[5] then return 'lost' end
if held[2] then return 'wanted' end
return 'held'
