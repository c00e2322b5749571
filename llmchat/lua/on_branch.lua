-- Tell of messages whether the current branch leads through each: '1' or '0'.
local tree = KEYS[1]
local known = {['']='1'}

for _, message in ipairs(ARGV) do
  local id, way = message, {}
  while not known[id] do
    local parent = parent_of(tree, id)
    way[#way + 1] = id
    if not parent or redis.call('HGET', tree, 'chosen:' .. parent) ~= id then
      known[id] = '0'
      break
    end
    id = parent
  end
  for _, each in ipairs(way) do known[each] = known[id] end
end

local told = {}
for _, message in ipairs(ARGV) do told[#told + 1] = known[message] end
return told
