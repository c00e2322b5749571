-- Make the stop of the answer being made a durable fact. Returns the answer's id, '' if none is made.
local conversation, turn = unpack(KEYS)
local session = unpack(ARGV)

if not owned(conversation, session) then return false end
local answer = redis.call('HGET', turn, 'answer')
if not answer then return '' end
redis.call('HSET', turn, 'stop', '1')
return answer
