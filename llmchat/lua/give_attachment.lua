-- Give a file to another session. Tells for how many ms it is there yet (-1 is for ever), -2 where it is neither one's.
local facts, bytes = unpack(KEYS)
local session, other = unpack(ARGV)

local owner = redis.call('HGET', facts, 'session')
if owner ~= session and owner ~= other then return -2 end
if owner == session then redis.call('HSET', facts, 'session', other) end
return redis.call('PTTL', bytes)
