-- List the messages from one on upwards that no summary stands for, at most `most` of them, and from where to go on ('':
-- there are no more).
local conversation, tree, summaries = unpack(KEYS)
local session, id, most = unpack(ARGV)

if not owned(conversation, session) then return false end
local ids = {}
while id and id ~= '' and redis.call('HEXISTS', summaries, id) == 0 do
  if #ids >= tonumber(most) then return {ids, id} end
  ids[#ids + 1] = id
  local node = redis.call('HGET', tree, id)
  id = node and string.match(node, ' (.*)$')
end
return {ids, ''}
