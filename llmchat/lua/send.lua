-- Store a prompt, make its turn takeable or put it behind those that wait, and place message.added: one step, safe to
-- repeat. `queued` = '1': the caller has seen an answer being made.
local conversation, messages, tree, log, turn, queue = unpack(KEYS)
local session, new, epoch, now, title, id, digest, record, revision, parent, answer, model, queued, most, files, system,
  parameters, temporary, body, channel, log_ms, log_entries, log_bytes, retention_ms = unpack(ARGV)

if redis.call('EXISTS', conversation) == 0 then
  if new == '0' then return {'not_found'} end
  redis.call('HSET', conversation, 'session', session, 'epoch', epoch, 'offset', '0', 'revision', '0', 'tip', '',
    'title', title, 'title_tries', '0', 'model', model, 'created', now, 'updated', now)
  if system ~= '' then redis.call('HSET', conversation, 'system', string.sub(system, 2)) end
  if parameters ~= '' then redis.call('HSET', conversation, 'parameters', parameters) end
  if temporary == '1' then redis.call('HSET', conversation, 'temporary', '1') end
elseif not owned(conversation, session) then
  return {'not_found'}
end

local sent = redis.call('HGET', tree, 'sent:' .. id)
if sent then
  if string.sub(sent, 1, #digest) ~= digest then return {'conflict'} end
  return {'repeated', string.sub(sent, #digest + 2), redis.call('HGET', conversation, 'epoch'),
    redis.call('HGET', conversation, 'offset')}
end
if redis.call('HGET', conversation, 'revision') ~= revision then return {'moved'} end
if tostring(redis.call('EXISTS', turn)) ~= queued then return {'moved'} end
if redis.call('LLEN', queue) >= tonumber(most) then return {'busy'} end

redis.call('HSET', messages, id, record)
for file in string.gmatch(files, '%S+') do redis.call('HSET', tree, 'file:' .. file, '1') end
join(conversation, tree, id, 'user', parent)
turn_to(conversation, tree, id, parent)
redis.call('HSET', tree, answer, 'assistant ' .. id)  -- to come: what is sent next goes below it
turn_to(conversation, tree, answer, id)
redis.call('HSET', conversation, 'updated', now)
if queued == '1' then
  if redis.call('HGET', turn, 'answer') == parent then
    redis.call('HSET', tree, parent, 'assistant ' .. redis.call('HGET', turn, 'prompt'))
  end
  redis.call('RPUSH', queue, id .. ' ' .. answer .. ' ' .. model)
else
  open(turn, answer, id, model, now)
end
local offset = place(conversation, log, channel, body, log_ms, log_entries, log_bytes)
local at = redis.call('HGET', conversation, 'epoch') .. ' ' .. string.format('%d', offset)
redis.call('HSET', tree, 'sent:' .. id, digest .. ' ' .. answer .. ' ' .. at)
keep(retention_ms, conversation, messages, tree, turn, queue)
return {'accepted', answer .. ' ' .. at, redis.call('HGET', conversation, 'epoch'), string.format('%d', offset)}
