-- Let go of all that a conversation has, unless it is another session's. Tells 0 then, else 1. Whoever makes its answer
-- has no fence any more. KEYS: the conversation, then all its other keys.
local session = unpack(ARGV)

local owner = redis.call('HGET', KEYS[1], 'session')
if owner and owner ~= session then return 0 end
redis.call('UNLINK', unpack(KEYS))
return 1
