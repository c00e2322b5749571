-- Keep an entry of a hash, at most so many of them, and the hash for as long as it is used. `new` = '1': one that is
-- there stays as it is; '0': only one that is there is written. What `struck` has, if that is given, is not kept anew.
-- Tells what is there then, 'full', 'struck' or 'not_found'.
local entries, struck = unpack(KEYS)
local id, record, new, most, retention_ms = unpack(ARGV)

local there = redis.call('HGET', entries, id)
if new == '0' and not there then return {'not_found'} end
if struck and not there and redis.call('ZSCORE', struck, id) then return {'struck'} end
if new == '1' and not there and redis.call('HLEN', entries) >= tonumber(most) then return {'full'} end
if new == '0' or not there then redis.call('HSET', entries, id, record) end
if retention_ms == '0' then redis.call('PERSIST', entries) else redis.call('PEXPIRE', entries, retention_ms) end
return {'ok', new == '1' and there or record}
