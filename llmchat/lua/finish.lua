-- Place completion.finished or completion.failed, store the whole message, end the turn. A repeat finds no turn.
local conversation, messages, tree, log, turn, text, reasoning, fence = unpack(KEYS)
local token, answer, attempt, count, record, reasons, now, calibration, body, channel, log_ms, log_entries, log_bytes,
  retention_ms = unpack(ARGV)

if redis.call('GET', fence) ~= token then return {'fenced'} end
if redis.call('HGET', turn, 'answer') ~= answer then return {'ok', '0'} end

if redis.call('HGET', turn, 'attempt') ~= attempt
  or tonumber(redis.call('HGET', turn, 'count') or -1) ~= tonumber(count) then renew(conversation, log) end
if redis.call('HEXISTS', messages, answer) == 0 then
  grow(conversation, tree, answer, 'assistant', redis.call('HGET', turn, 'prompt'))
end
redis.call('HSET', messages, answer, record)
if reasons ~= '' then redis.call('HSET', messages, 'reasoning:' .. answer, reasons) end
redis.call('HSET', conversation, 'updated', now)
if calibration ~= '' then redis.call('HSET', conversation, 'calibration', calibration) end
redis.call('DEL', turn, text, reasoning)
place(conversation, log, channel, body, log_ms, log_entries, log_bytes)
keep(retention_ms, conversation, messages, tree)
return {'ok', '0'}
