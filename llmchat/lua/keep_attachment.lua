-- How long a file lives ('0' is for ever), by what happens: 'put' notes it, 'keep' gives it to the conversation whose
-- message has it, 'doom' hides it, 'restore' brings it back. Tells 0 where that is not to be: not there, another's.
local facts, bytes = unpack(KEYS)
local way, session, conversation, lifetime_ms, name, kind, size, digest = unpack(ARGV)

if redis.call('EXISTS', bytes) == 0 then return 0 end
if way == 'put' then
  redis.call('HSET', facts, 'session', session, 'conversation', '', 'name', name, 'type', kind, 'size', size,
    'digest', digest)
else
  local owner, of = unpack(redis.call('HMGET', facts, 'session', 'conversation'))
  if owner ~= session or (of ~= conversation and (of ~= '' or way ~= 'keep')) then return 0 end
  local doomed = redis.call('HEXISTS', facts, 'doomed') == 1
  if way == 'keep' and doomed then return 0 end
  if way == 'keep' then redis.call('HSET', facts, 'conversation', conversation) end
  if way == 'doom' then redis.call('HSET', facts, 'doomed', '1') end
  if way == 'restore' then redis.call('HDEL', facts, 'doomed') end
end
for _, key in ipairs(KEYS) do
  if lifetime_ms == '0' then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, lifetime_ms) end
end
return 1
