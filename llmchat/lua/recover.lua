-- Put back what the store has lost of the answer being made, for the holder of the fence, who has it all. Places
-- nothing: a new epoch begins, and the next event tells. A repeat finds it done.
local conversation, messages, tree, log, turn, queue, text, reasoning, fence = unpack(KEYS)
local token, answer, attempt, count, prompt, record, said, reasons, retention_ms = unpack(ARGV)

if redis.call('GET', fence) ~= token or redis.call('HGET', turn, 'answer') ~= answer then return {'fenced'} end
local stop = redis.call('HGET', turn, 'stop') or '0'
if redis.call('HGET', turn, 'attempt') == attempt
  and tonumber(redis.call('HGET', turn, 'count') or -1) >= tonumber(count) then return {'ok', stop} end

begin(conversation, messages, tree, queue, answer, prompt)
redis.call('HSET', messages, answer, record)
redis.call('SET', text, said)
redis.call('SET', reasoning, reasons)
redis.call('HDEL', turn, 'handed', 'queued', 'instead')
redis.call('HSET', turn, 'attempt', attempt, 'count', count)
renew(conversation, log)
keep(retention_ms, conversation, messages, tree, turn, text, reasoning)
return {'ok', stop}
