-- Find the newest summary on the way up from a message ('': the tip).
local conversation, tree, summaries = unpack(KEYS)
local session, from = unpack(ARGV)

if not owned(conversation, session) then return false end
if redis.call('EXISTS', summaries) == 0 then return {} end
local id = from ~= '' and from or redis.call('HGET', conversation, 'tip')
while id and id ~= '' do
  local found = redis.call('HGET', summaries, id)
  if found then return {id, found} end
  local node = redis.call('HGET', tree, id)
  id = node and string.match(node, ' (.*)$')
end
return {}
