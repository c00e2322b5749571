-- Take tokens of a day's count, where so many are left; give them back where they are less than none. ARGV: how many, the
-- most there may be (-1: that does not matter any more), the seconds that the count is kept. Returns whether they were left.
local tokens, most = tonumber(ARGV[1]), tonumber(ARGV[2])

if most >= 0 and tonumber(redis.call('GET', KEYS[1]) or 0) + tokens > most then return 0 end
if redis.call('INCRBY', KEYS[1], tokens) < 0 then redis.call('SET', KEYS[1], 0) end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
