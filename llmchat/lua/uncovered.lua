-- List the messages from one ('': the tip) on upwards that no summary stands for, at most `most` of them; and either from
-- where to go on, or the summary that the next one has ('' and nothing: there are no more).
local conversation, tree, summaries = unpack(KEYS)
local session, from, most = unpack(ARGV)

if not owned(conversation, session) then return false end
local id = from ~= '' and from or redis.call('HGET', conversation, 'tip')
local ids = {}
while id and id ~= '' do
  local found = redis.call('HGET', summaries, id)
  if found then return {ids, '', {id, found}} end
  if #ids >= tonumber(most) then return {ids, id, {}} end
  ids[#ids + 1] = id
  id = parent_of(tree, id)
end
return {ids, '', {}}
