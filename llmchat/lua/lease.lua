-- Take, renew or release the lease of a conversation. The fence rises with every taking, and only then, by a step
-- drawn at random: after a store lost its last second no two holders own the same. It outlives its last holder by a day.
-- Of a conversation that is not there nothing is taken: of what was erased no key comes back.
local lease, fence, conversation = unpack(KEYS)
local verb, holder, token, lease_ms, step = unpack(ARGV)

if verb == 'take' then
  local now = redis.call('GET', lease)
  if now == holder then return redis.call('GET', fence) end  -- the reply to the first try was lost
  if now or redis.call('EXISTS', conversation) == 0 then return false end
  redis.call('SET', lease, holder, 'PX', lease_ms)
  local taken = redis.call('INCRBY', fence, step)
  redis.call('PEXPIRE', fence, 86400000)
  return string.format('%d', taken)
end
if redis.call('GET', fence) ~= token then return false end
if verb == 'renew' then
  redis.call('SET', lease, holder, 'PX', lease_ms)
elseif redis.call('GET', lease) == holder then
  redis.call('DEL', lease)
end
return token
