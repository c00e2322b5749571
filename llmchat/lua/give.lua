-- Give a conversation to another session. Tells 'given', 'there' where that was done before, 'none' where it is neither
-- one's; then what says in which lists it belongs: deleted, temporary, pinned, archived, updated.
local session, other = unpack(ARGV)

local owner, deleted, temporary, pinned, archived, updated = unpack(redis.call('HMGET', KEYS[1], 'session', 'deleted',
  'temporary', 'pinned', 'archived', 'updated'))
if owner ~= session and owner ~= other then return {'none'} end
if owner == session then redis.call('HSET', KEYS[1], 'session', other) end
return {owner == session and 'given' or 'there', deleted or '0', temporary or '0', pinned or '0', archived or '0', updated}
