-- Place completion.started, for the holder of the fence. A repeat of the same attempt places nothing. `spent` is what
-- the attempts before have cost, `furthest` how far any of them came.
local conversation, messages, tree, log, turn, queue, text, reasoning, fence = unpack(KEYS)
local token, answer, attempt, prompt, record, kept, spent, furthest, body, channel, log_ms, log_entries, log_bytes,
  retention_ms = unpack(ARGV)

if redis.call('GET', fence) ~= token or redis.call('HGET', turn, 'answer') ~= answer then return {'fenced'} end
local stop = redis.call('HGET', turn, 'stop') or '0'
local before = redis.call('HGET', turn, 'attempt')
if before == attempt then return {'ok', stop} end
if stop == '1' and before ~= '0' then return {'ok', stop} end  -- the text of the attempt before stays

begin(conversation, messages, tree, queue, answer, prompt)
redis.call('HSET', messages, answer, record)
local said, earlier = redis.call('GET', text) or '', redis.call('HGET', messages, 'earlier:' .. answer) or ''
if string.find(said, '%S', #kept + 1) and string.sub(earlier, 1, #said) ~= said then
  redis.call('HSET', messages, 'earlier:' .. answer, said)  -- should nothing come of this attempt
end
redis.call('SET', text, kept)
if kept == '' then redis.call('DEL', reasoning) end
redis.call('HDEL', turn, 'handed', 'queued', 'instead')
redis.call('HSET', turn, 'attempt', attempt, 'count', '0', 'spent', spent, 'furthest', furthest)
place(conversation, log, channel, body, log_ms, log_entries, log_bytes)
keep(retention_ms, conversation, messages, tree, turn, text, reasoning)
return {'ok', stop}
