-- Make a turn for a prompt that is there already. Places nothing: completion.started will.
local conversation, messages, tree, turn = unpack(KEYS)
local session, prompt, answer, model, now, retention_ms = unpack(ARGV)

if not owned(conversation, session) or redis.call('HEXISTS', messages, prompt) == 0 then return 'not_found' end
if redis.call('HGET', turn, 'answer') == answer or redis.call('HEXISTS', tree, answer) == 1 then return 'repeated' end
if redis.call('EXISTS', turn) == 1 then return 'busy' end

local tip = redis.call('HGET', conversation, 'tip')
local ends = redis.call('HGET', tree, tip) == 'assistant ' .. prompt
open(turn, answer, prompt, model, now, 'instead', ends and tip or '')
redis.call('HSET', tree, answer, 'assistant ' .. prompt)
redis.call('HSET', conversation, 'updated', now)
keep(retention_ms, conversation, messages, tree, turn)
return 'accepted'
