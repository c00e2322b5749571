-- Place one completion.delta, for the holder of the fence. `count` is the turn's own: a repeat places nothing.
-- Answers with the stop flag, so that a stop works with pub/sub down; 'behind' where deltas before this are missing.
local conversation, log, turn, text, reasoning, fence = unpack(KEYS)
local token, answer, attempt, count, more_text, more_reasoning, body, channel, log_ms, log_entries, log_bytes,
  retention_ms = unpack(ARGV)

local now, stop, made, placed = unpack(redis.call('HMGET', turn, 'answer', 'stop', 'attempt', 'count'))
if redis.call('GET', fence) ~= token or now ~= answer then return {'fenced'} end
stop = stop or '0'
if made ~= attempt then return {'behind'} end
placed = tonumber(placed or -1)
if placed >= tonumber(count) then return {'ok', stop} end
if placed ~= count - 1 then return {'behind'} end

redis.call('HSET', turn, 'count', count)
redis.call('APPEND', text, more_text)
if more_reasoning ~= '' then
  redis.call('APPEND', reasoning, more_reasoning)
  keep(retention_ms, conversation, reasoning)
end
place(conversation, log, channel, body, log_ms, log_entries, log_bytes)
return {'ok', stop}
