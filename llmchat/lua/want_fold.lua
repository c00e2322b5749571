-- Note up to which message a conversation is to be folded, unless that is noted already.
local conversation, fold = unpack(KEYS)
local up_to, model, retention_ms = unpack(ARGV)

if redis.call('EXISTS', conversation) == 0 or redis.call('HEXISTS', conversation, 'deleted') == 1 then return 'ok' end
if redis.call('HEXISTS', fold, 'up_to') == 1 then return 'ok' end
redis.call('HSET', fold, 'up_to', up_to, 'model', model, 'tries', '0')
keep(retention_ms, conversation, fold)
return 'ok'
