-- Give the copy that a shared link shows to another session. Tells 0 where it is not there.
local other = unpack(ARGV)

if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'session', other)
return 1
