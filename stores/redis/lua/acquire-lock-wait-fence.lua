-- Takes the lock of an upload, or registers the caller as its newest waiter and has the holder asked to release.
-- Who only wants it to be free takes nothing, and disturbs nobody who waits for it. Can be repeated with the same
-- token: whoever holds the lock already is given it again.
--
-- KEYS 1 lock    hash  token, fence, holder, channel, wanted
--      2 wait    hash  token, channel of the newest waiter
--      3 fence   hash  last (fence that was given out), askedAt (when a holder was asked to release, in milliseconds),
--                      before (askedAt before this holder was asked; 0 for never), unused (token of a holder that did not use its lock)
-- ARGV 1 token         random, of this acquisition
--      2 holder        identity of the caller's process
--      3 channel       of the caller's process
--      4 leaseMs       how long the lock stands without a renewal
--      5 waitMs        how long a waiter is remembered without asking again
--      6 awaited       token of the holder that was waited for; empty on the first ask
--      7 fenceMs       how long the last fence is remembered
--      8 rememberedMs  how long it is told that a holder was asked to release
--      9 wish          'lock', or 'free' when it is enough that nobody holds it
--     10 id            of the upload, for the holder who is asked
-- Returns {'taken', fence, isTakeOver}      isTakeOver is 1 when the caller awaited a holder that used its lock, or one was
--                                           asked to release within rememberedMs
--         {'free'}                          nobody holds it
--         {'busy', token, holder, leftMs}   the caller is registered; `leftMs` is what is left of the holder's lease
--         {'superseded'}                    a newer waiter has registered, or taken the lock
-- version 3
local held = redis.call('HMGET', KEYS[1], 'token', 'fence', 'holder', 'channel', 'wanted')
local waiter = redis.call('HMGET', KEYS[2], 'token', 'channel')
local past = redis.call('HMGET', KEYS[3], 'last', 'askedAt', 'unused')
local time = redis.call('TIME')
local nowMs = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local hasAwaited = ARGV[6] ~= '' and ARGV[6] ~= past[3]
local isTakeOver = 0
if hasAwaited or nowMs - tonumber(past[2] or '0') < tonumber(ARGV[8]) then isTakeOver = 1 end

local function noteAsked()
  redis.call('HSET', KEYS[3], 'askedAt', string.format('%.0f', nowMs))
  redis.call('PEXPIRE', KEYS[3], ARGV[7])
end

if held[1] == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  return { 'taken', held[2], isTakeOver }
end

if not held[1] and ARGV[9] == 'free' then
  if waiter[1] == ARGV[1] then redis.call('DEL', KEYS[2]) end
  if hasAwaited then noteAsked() end
  return { 'free' }
end

if ARGV[6] ~= '' and waiter[1] ~= ARGV[1] then
  if waiter[1] then return { 'superseded' } end
  if held[1] and held[1] ~= ARGV[6] then return { 'superseded' } end
end

if waiter[1] and waiter[1] ~= ARGV[1] then
  redis.call('PUBLISH', waiter[2], 'superseded ' .. waiter[1])
end

if held[1] then
  redis.call('HSET', KEYS[2], 'token', ARGV[1], 'channel', ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
  redis.call('HSET', KEYS[1], 'wanted', '1')
  if not held[5] then redis.call('HSET', KEYS[3], 'before', past[2] or '0') end
  noteAsked()
  redis.call('PUBLISH', held[4], 'wanted ' .. held[1] .. ' ' .. ARGV[10])
  return { 'busy', held[1], held[3], redis.call('PTTL', KEYS[1]) }
end

-- The server's clock makes the fence grow even when everything was lost; the last fence, when the clock was set back.
local fence = tonumber(time[1]) * 1000000 + tonumber(time[2])
local last = tonumber(past[1] or '0')
if fence <= last then fence = last + 1 end
fence = string.format('%.0f', fence)
redis.call('HSET', KEYS[3], 'last', fence)
redis.call('PEXPIRE', KEYS[3], ARGV[7])
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'fence', fence, 'holder', ARGV[2], 'channel', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return { 'taken', fence, isTakeOver }
