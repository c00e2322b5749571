-- Find from where on upwards at most `limit` messages have no summary above them: the oldest of those up to a message.
local conversation, tree, summaries = unpack(KEYS)
local session, up_to, limit = unpack(ARGV)

if not owned(conversation, session) then return false end
local ids, id = {}, up_to
while id and id ~= '' and redis.call('HEXISTS', summaries, id) == 0 do
  ids[#ids + 1] = id
  local node = redis.call('HGET', tree, id)
  id = node and string.match(node, ' (.*)$')
end
return ids[math.max(1, #ids - limit + 1)] or ''
