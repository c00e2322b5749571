-- Take a shared link off its session's list, and note that, so that its name is not given again: `most` of the newest are
-- noted. Tells whether it was there, or is noted.
local shares, revoked = unpack(KEYS)
local token, most, retention_ms = unpack(ARGV)

if redis.call('HDEL', shares, token) == 1 then
  local time = redis.call('TIME')
  redis.call('ZADD', revoked, string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000)), token)
  redis.call('ZREMRANGEBYRANK', revoked, '0', string.format('%d', -1 - most))
  if retention_ms == '0' then redis.call('PERSIST', revoked) else redis.call('PEXPIRE', revoked, retention_ms) end
  return 1
end
return redis.call('ZSCORE', revoked, token) and 1 or 0
