-- Make the branch through a message the current one: down to its last chosen descendant. Places conversation.selected.
local conversation, tree, log = unpack(KEYS)
local session, message, body, channel, log_ms, log_entries, log_bytes = unpack(ARGV)

if not owned(conversation, session) or redis.call('HEXISTS', tree, message) == 0 then return {'not_found'} end

choose(tree, message, '')
local tip = message
local chosen = redis.call('HGET', tree, 'chosen:' .. tip)
while chosen do
  tip = chosen
  chosen = redis.call('HGET', tree, 'chosen:' .. tip)
end
redis.call('HSET', conversation, 'tip', tip)
redis.call('HINCRBY', conversation, 'revision', 1)
place(conversation, log, channel, body .. tip .. '"', log_ms, log_entries, log_bytes)
return {'ok', tip}
