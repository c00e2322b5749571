-- Place completion.finished or completion.failed, store the whole message, end the turn; the next prompt that waits has
-- the next one. A repeat finds no such turn.
local conversation, messages, tree, log, turn, queue, text, reasoning, fence, summaries = unpack(KEYS)
local token, answer, attempt, count, record, reasons, now, calibration, body, channel, log_ms, log_entries, log_bytes,
  retention_ms = unpack(ARGV)

if redis.call('GET', fence) ~= token then return {'fenced'} end
if redis.call('HGET', turn, 'answer') ~= answer then return {'ok', '0'} end

if redis.call('HGET', turn, 'attempt') ~= attempt
  or tonumber(redis.call('HGET', turn, 'count') or -1) ~= tonumber(count) then renew(conversation, log) end
begin(conversation, messages, tree, queue, answer, redis.call('HGET', turn, 'prompt'))
redis.call('HSET', messages, answer, record)
if redis.call('HEXISTS', turn, 'kept') == 1 then redis.call('HINCRBY', conversation, 'continued', 1) end
if reasons ~= '' then redis.call('HSET', messages, 'reasoning:' .. answer, reasons) end
redis.call('HSET', conversation, 'updated', now, 'unread', '1')
if calibration ~= '' then redis.call('HSET', conversation, 'calibration', calibration) end
redis.call('HDEL', messages, 'earlier:' .. answer)
redis.call('DEL', turn, text, reasoning)
local next = redis.call('LPOP', queue)
if next then
  local prompt, to_come, model = waiting(next)
  open(turn, to_come, prompt, model, now, 'queued', '1')
end
place(conversation, log, channel, body, log_ms, log_entries, log_bytes)
keep(retention_ms, conversation, messages, tree, turn, queue, summaries)
return {'ok', '0'}
