-- Let another instance go on with a turn, without an attempt being counted, for the holder of the fence. Tells whether
-- there is a turn.
local turn, fence = unpack(KEYS)
local token = unpack(ARGV)

if redis.call('GET', fence) ~= token or redis.call('EXISTS', turn) == 0 then return 0 end
redis.call('HSET', turn, 'handed', '1')
return 1
