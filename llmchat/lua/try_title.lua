-- Count a try to find a conversation's title; tells whether it is made. One that began before there were titles, or was
-- named by a person, keeps the title that it has.
local conversation = KEYS[1]
local session, most = unpack(ARGV)

local tries = tonumber(redis.call('HGET', conversation, 'title_tries'))
if not tries or tries >= tonumber(most) then return 0 end
if not owned(conversation, session) or redis.call('HEXISTS', conversation, 'titled') == 1 then return 0 end
if redis.call('HGET', conversation, 'temporary') == '1' then return 0 end
redis.call('HINCRBY', conversation, 'title_tries', 1)
return 1
