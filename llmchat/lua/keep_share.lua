-- Keep a shared snapshot, once: later it is not written over. For ever where retention_ms is '0'.
local share = unpack(KEYS)
local retention_ms = ARGV[1]

if redis.call('EXISTS', share) == 1 then return end
redis.call('HSET', share, unpack(ARGV, 2))
if retention_ms ~= '0' then redis.call('PEXPIRE', share, retention_ms) end
