-- Store a prompt, make its turn takeable and place message.added: one step, safe to repeat.
local conversation, messages, tree, log, turn = unpack(KEYS)
local session, new, epoch, now, title, id, digest, record, revision, parent, answer, model, body, channel, log_ms,
  log_entries, log_bytes, retention_ms = unpack(ARGV)

if redis.call('EXISTS', conversation) == 0 then
  if new == '0' then return {'not_found'} end
  redis.call('HSET', conversation, 'session', session, 'epoch', epoch, 'offset', '0', 'revision', '0', 'tip', '',
    'title', title, 'model', model, 'created', now, 'updated', now)
elseif not owned(conversation, session) then
  return {'not_found'}
end

local sent = redis.call('HGET', tree, 'sent:' .. id)
if sent then
  if string.sub(sent, 1, #digest) ~= digest then return {'conflict'} end
  return {'repeated', string.sub(sent, #digest + 2), redis.call('HGET', conversation, 'epoch'),
    redis.call('HGET', conversation, 'offset')}
end
if redis.call('EXISTS', turn) == 1 then return {'busy'} end
if redis.call('HGET', conversation, 'revision') ~= revision then return {'moved'} end

redis.call('HSET', messages, id, record)
grow(conversation, tree, id, 'user', parent)
redis.call('HSET', conversation, 'updated', now)
redis.call('HSET', turn, 'answer', answer, 'prompt', id, 'model', model, 'attempt', '0', 'since', now)
local offset = place(conversation, log, channel, body, log_ms, log_entries, log_bytes)
local at = redis.call('HGET', conversation, 'epoch') .. ' ' .. string.format('%d', offset)
redis.call('HSET', tree, 'sent:' .. id, digest .. ' ' .. answer .. ' ' .. at)
keep(retention_ms, conversation, messages, tree, turn)
return {'accepted', answer .. ' ' .. at, redis.call('HGET', conversation, 'epoch'), string.format('%d', offset)}
