-- Count a file's bytes until it goes, by the server's clock. One that comes has `most` (of all bytes): where it is too
-- much, count nothing and tell 0; where it is counted already, change nothing.
-- `index`: "bytes id" -> when it goes, in ms; `total`: the sum of its bytes. Lets go of what has gone.
local index, total = unpack(KEYS)
local id, size, lifetime_ms, most = unpack(ARGV)
local entry = size .. ' ' .. id

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', string.format('%d', now), 'LIMIT', '0', '1000')) do
  redis.call('ZREM', index, gone)
  redis.call('DECRBY', total, string.match(gone, '^%d+'))
end
if not redis.call('ZSCORE', index, entry) then
  local used = tonumber(redis.call('GET', total) or 0)
  if most ~= '' and used + tonumber(size) > tonumber(most) then return 0 end
  redis.call('INCRBY', total, size)
elseif most ~= '' then
  return 1
end
redis.call('ZADD', index, lifetime_ms == '0' and '+inf' or string.format('%d', now + lifetime_ms), entry)
local last = tonumber(redis.call('ZRANGE', index, '-1', '-1', 'WITHSCORES')[2])
for _, key in ipairs(KEYS) do
  if last == math.huge then redis.call('PERSIST', key) else redis.call('PEXPIREAT', key, string.format('%d', last)) end
end
return 1
