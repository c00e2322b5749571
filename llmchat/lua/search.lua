-- Read some of a conversation's messages, where a session may search it: its title, where to read on ('0' at the end),
-- how many bytes were looked at, and the records.
local conversation, messages = unpack(KEYS)
local session, cursor, most = unpack(ARGV)
local AT_ONCE = '4'  -- messages: one may be large

local state = redis.call('HMGET', conversation, 'session', 'deleted', 'temporary', 'title')
if state[1] ~= session or state[2] or state[3] == '1' then return false end
local records, bytes = {}, 0
repeat
  local found = redis.call('HSCAN', messages, cursor, 'COUNT', AT_ONCE)
  cursor = found[1]
  for index = 1, #found[2], 2 do
    local field, record = found[2][index], found[2][index + 1]
    bytes = bytes + #record
    if not string.find(field, ':', 1, true) then records[#records + 1] = record end
  end
until cursor == '0' or bytes >= tonumber(most)
return {state[4], cursor, bytes, records}
