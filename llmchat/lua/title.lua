-- Set the title that a model found, unless there is one by now; tells whether it was set. Its last use stays the last.
local conversation = KEYS[1]
local session, title = unpack(ARGV)

if not owned(conversation, session) or redis.call('HEXISTS', conversation, 'titled') == 1 then return 0 end
if redis.call('HGET', conversation, 'temporary') == '1' then return 0 end
redis.call('HSET', conversation, 'title', title, 'titled', 'auto')
return 1
