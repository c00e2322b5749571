-- Note that a conversation is answered, where fewer than so many are (0: no limit), or it is noted already. ARGV: the
-- entry, the most, the ms after which it is not counted any more. Returns 0 where there is no room, 1 for a new entry, or 2.
local entry, most, lifetime_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local known = redis.call('ZSCORE', KEYS[1], entry)
if most > 0 and not known and redis.call('ZCARD', KEYS[1]) >= most then return 0 end
redis.call('ZADD', KEYS[1], now + lifetime_ms, entry)
redis.call('PEXPIRE', KEYS[1], lifetime_ms)
return known and 2 or 1
