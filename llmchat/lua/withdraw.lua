-- Take back a prompt that waits; what waits behind it moves to its parent. Places message.withdrawn, and where that
-- leaves a version of it to be shown, conversation.selected. A repeat places nothing.
local conversation, messages, tree, log, turn, queue = unpack(KEYS)
local session, message, body, selected, channel, log_ms, log_entries, log_bytes = unpack(ARGV)

if not owned(conversation, session) then return 'not_found' end
if redis.call('HEXISTS', messages, message) == 0 then
  return redis.call('HEXISTS', tree, 'sent:' .. message) == 1 and 'repeated' or 'not_found'
end

local waits, answer
local behind = {}
for _, entry in ipairs(redis.call('LRANGE', queue, '0', '-1')) do
  local prompt, to_come = waiting(entry)
  if prompt == message then waits, answer = entry, to_come end
  if answer and redis.call('HGET', tree, prompt) == 'user ' .. answer then behind[#behind + 1] = prompt end
end
if not waits then return redis.call('HGET', turn, 'prompt') == message and 'busy' or 'bad_field' end

local parent = parent_of(tree, message)
local siblings = {}
for id in string.gmatch(redis.call('HGET', tree, 'children:' .. parent), '%S+') do
  if id ~= message then siblings[#siblings + 1] = id end
end
local left = siblings[#siblings]
for _, id in ipairs(behind) do
  redis.call('HSET', tree, id, 'user ' .. parent)
  siblings[#siblings + 1] = id
end
if redis.call('HGET', tree, 'chosen:' .. parent) == message then
  local instead = redis.call('HGET', tree, 'chosen:' .. answer) or left
  if instead then
    redis.call('HSET', tree, 'chosen:' .. parent, instead)
  else
    redis.call('HDEL', tree, 'chosen:' .. parent)
  end
end
if #siblings > 0 then
  redis.call('HSET', tree, 'children:' .. parent, table.concat(siblings, ' '))
else
  redis.call('HDEL', tree, 'children:' .. parent)
end
redis.call('LREM', queue, '1', waits)
redis.call('HDEL', tree, message, answer, 'chosen:' .. message, 'chosen:' .. answer, 'children:' .. answer)
redis.call('HDEL', messages, message)
redis.call('HINCRBY', conversation, 'revision', 1)
place(conversation, log, channel, body, log_ms, log_entries, log_bytes)

if redis.call('HGET', conversation, 'tip') == answer then
  redis.call('HSET', conversation, 'tip', parent)
  if left then select(conversation, messages, tree, log, left, selected, channel, log_ms, log_entries, log_bytes) end
end
return 'ok'
