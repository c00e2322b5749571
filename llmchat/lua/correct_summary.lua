-- Replace a summary, if it is still what it was.
local summaries = unpack(KEYS)
local message, before, after = unpack(ARGV)

local now = redis.call('HGET', summaries, message)
if now == after then return 1 end
if now ~= before then return 0 end
redis.call('HSET', summaries, message, after)
return 1
