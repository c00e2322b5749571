-- Begin a new epoch where a client was told of more than there is, and the store may have lost it.
local conversation, log = unpack(KEYS)
local session, epoch, offset = unpack(ARGV)

if not owned(conversation, session) then return 'not_found' end
local same = redis.call('HGET', conversation, 'epoch') == epoch
if same and tonumber(redis.call('HGET', conversation, 'offset')) < tonumber(offset) then
  local now = history()
  if now == '' or redis.call('HGET', conversation, 'history') ~= now then renew(conversation, log) end
end
return 'ok'
