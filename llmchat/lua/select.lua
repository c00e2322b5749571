-- Make the branch through a message the current one. Places conversation.selected.
local conversation, messages, tree, log = unpack(KEYS)
local session, message, body, channel, log_ms, log_entries, log_bytes = unpack(ARGV)

if not owned(conversation, session) or redis.call('HEXISTS', messages, message) == 0 then return 'not_found' end
select(conversation, messages, tree, log, message, body, channel, log_ms, log_entries, log_bytes)
return 'ok'
