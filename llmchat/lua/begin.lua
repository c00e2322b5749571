-- Place completion.started, for the holder of the fence. A repeat of the same attempt places nothing.
local conversation, messages, tree, log, turn, text, reasoning, fence = unpack(KEYS)
local token, answer, attempt, prompt, record, kept, body, channel, log_ms, log_entries, log_bytes,
  retention_ms = unpack(ARGV)

if redis.call('GET', fence) ~= token or redis.call('HGET', turn, 'answer') ~= answer then return {'fenced'} end
local stop = redis.call('HGET', turn, 'stop') or '0'
local before = redis.call('HGET', turn, 'attempt')
if before == attempt then return {'ok', stop} end
if stop == '1' and before ~= '0' then return {'ok', stop} end  -- the text of the attempt before stays

if redis.call('HEXISTS', messages, answer) == 0 then grow(conversation, tree, answer, 'assistant', prompt) end
redis.call('HSET', messages, answer, record)
redis.call('SET', text, kept)
redis.call('DEL', reasoning)
redis.call('HSET', turn, 'attempt', attempt, 'count', '0')
place(conversation, log, channel, body, log_ms, log_entries, log_bytes)
keep(retention_ms, conversation, messages, tree, turn, text)
return {'ok', stop}
