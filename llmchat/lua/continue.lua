-- Make a turn that goes on with an answer, from the text it has. Places nothing: completion.started will.
local conversation, messages, tree, turn, text, reasoning = unpack(KEYS)
local REMEMBERED = 1000  -- characters of ids of commands
local session, answer, command, record, may, said, model, now, retention_ms = unpack(ARGV)

if not owned(conversation, session) or record == '' then return 'not_found' end
local before = redis.call('HGET', tree, 'continued:' .. answer) or ''
if string.find(' ' .. before .. ' ', ' ' .. command .. ' ', 1, true) then return 'repeated' end
if redis.call('EXISTS', turn) == 1 then return 'busy' end
if redis.call('HGET', messages, answer) ~= record then return 'moved' end
if may == '0' then return 'bad_field' end
if redis.call('HEXISTS', tree, 'covered:' .. answer) == 1 then return 'covered' end

local prompt = parent_of(tree, answer)
open(turn, answer, prompt, model, now, 'kept', #said)
redis.call('SET', text, said)
redis.call('SET', reasoning, redis.call('HGET', messages, 'reasoning:' .. answer) or '')
redis.call('HSET', tree, 'continued:' .. answer, string.match(string.sub(command .. ' ' .. before .. ' ', 1, REMEMBERED), '^(.*) '))
redis.call('HSET', conversation, 'updated', now)
keep(retention_ms, conversation, messages, tree, turn, text, reasoning)
return 'accepted'
