-- Have keys of one slot live for so long at most, where they live longer: of a conversation, unless it was used meanwhile
-- (`updated` is what it said; '' of other keys), is being used, or was deleted. `change` = '0' only looks. Tells how many
-- keys live too long.
local left_ms, slack_ms, updated, change = unpack(ARGV)

if updated ~= '' then
  local known, deleted = unpack(redis.call('HMGET', KEYS[1], 'updated', 'deleted'))
  if known ~= updated or deleted then return 0 end
end
local longer = 0
for _, key in ipairs(KEYS) do
  local ms = redis.call('PTTL', key)
  if ms == -1 or ms > left_ms + slack_ms then
    longer = longer + 1
    if change == '1' then redis.call('PEXPIRE', key, left_ms) end
  end
end
return longer
