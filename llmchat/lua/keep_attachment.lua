-- How long a file lives ('0' is for ever), by what happens: 'put' notes it, once; 'keep' gives it to the conversation
-- whose message has it; 'doom' lets it go with that, so that nothing keeps it longer but 'restore'; 'drop' lets go of one
-- that no message has. Tells 0 where that is not to be: not there, another's, noted already.
local facts, bytes = unpack(KEYS)
local way, session, conversation, lifetime_ms, name, kind, size, digest = unpack(ARGV)

if redis.call('EXISTS', bytes) == 0 then return 0 end
if way == 'put' then
  if redis.call('EXISTS', facts) == 1 then return 0 end
  redis.call('HSET', facts, 'session', session, 'conversation', '', 'name', name, 'type', kind, 'size', size,
    'digest', digest)
else
  local owner, of = unpack(redis.call('HMGET', facts, 'session', 'conversation'))
  if owner ~= session or (of ~= conversation and of ~= '') then return 0 end
  if way == 'keep' and redis.call('HEXISTS', facts, 'doomed') == 1 then return 0 end
  redis.call('HSET', facts, 'conversation', conversation)
  if way == 'doom' then redis.call('HSET', facts, 'doomed', '1') end
  if way == 'restore' then redis.call('HDEL', facts, 'doomed') end
end
for _, key in ipairs(KEYS) do
  if lifetime_ms == '0' then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, lifetime_ms) end
end
return 1
