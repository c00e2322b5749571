-- Store a part of a conversation that comes from elsewhere. It is not there until its hash is, which comes last. Tells
-- 'there' where it is already, 'moved' where what came before is lost. `step`: 'first' begins, 'more' goes on, 'last'
-- stores the hash, once the tree has `count` fields. What follows: for each part how many words it has, then fields and
-- values of messages, of the tree and of the conversation.
local conversation, messages, tree = unpack(KEYS)
local session, step, count, lifetime_ms = unpack(ARGV)

local owner = redis.call('HGET', conversation, 'session')
if owner and owner ~= session then return 'not_found' end
if owner then return redis.call('HEXISTS', conversation, 'deleted') == 1 and 'deleted' or 'there' end
if step == 'first' then redis.call('DEL', messages, tree) end
if step == 'more' and redis.call('EXISTS', tree) == 0 then return 'moved' end
local at = 5
for _, key in ipairs({messages, tree, conversation}) do
  local words = tonumber(ARGV[at])
  if key == conversation and step == 'last' and redis.call('HLEN', tree) ~= tonumber(count) then return 'moved' end
  if words > 0 then redis.call('HSET', key, unpack(ARGV, at + 1, at + words)) end
  at = at + words + 1
end
for _, key in ipairs(KEYS) do
  if lifetime_ms == '0' then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, lifetime_ms) end
end
return 'ok'
