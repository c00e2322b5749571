-- Doom a conversation: it is hidden at once and gone when the time to restore it is over. '0' restores it. A repeat
-- changes nothing. Tells the answer being made, '' where none is, and the files that its messages ever had.
local conversation, messages, tree, log, turn, queue, text, reasoning, summaries, fold = unpack(KEYS)
local session, doom, restore_ms, retention_ms = unpack(ARGV)

if redis.call('HGET', conversation, 'session') ~= session then return {'not_found'} end
local doomed = redis.call('HEXISTS', conversation, 'deleted') == 1
if doom == '1' and not doomed then
  redis.call('HSET', conversation, 'deleted', '1')
  if redis.call('EXISTS', turn) == 1 then redis.call('HSET', turn, 'stop', '1') end
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, restore_ms) end
elseif doom == '0' and doomed then
  redis.call('HDEL', conversation, 'deleted')
  keep(retention_ms, conversation, messages, tree, turn, queue, text, reasoning, summaries, fold)
end
local told = {'ok', redis.call('HGET', turn, 'answer') or ''}
for _, field in ipairs(redis.call('HKEYS', tree)) do
  local file = string.match(field, '^file:(.*)')
  if file then told[#told + 1] = file end
end
return told
