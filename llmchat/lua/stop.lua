-- Make the stop of the answer being made a durable fact. Returns the answer's id, '' if none is made, or another one
-- than is `meant` ('': any).
local conversation, turn = unpack(KEYS)
local session, meant = unpack(ARGV)

if not owned(conversation, session) then return false end
local answer = redis.call('HGET', turn, 'answer')
if not answer or (meant ~= '' and meant ~= answer) then return '' end
redis.call('HSET', turn, 'stop', '1')
return answer
