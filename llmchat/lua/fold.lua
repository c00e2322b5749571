-- Store a summary, for the holder of the fence, if the one that it came of is still what it was. `last` ends the fold.
local conversation, messages, summaries, fold, fence = unpack(KEYS)
local token, base, before, message, after, last, retention_ms = unpack(ARGV)

if redis.call('GET', fence) ~= token then return 'fenced' end
if redis.call('HEXISTS', conversation, 'deleted') == 1 or redis.call('HEXISTS', messages, message) == 0 then
  redis.call('DEL', fold)
  return 'gone'
end
if base ~= '' and redis.call('HGET', summaries, base) ~= before then return 'moved' end
redis.call('HSET', summaries, message, after)
if last == '1' then redis.call('DEL', fold) else redis.call('HSET', fold, 'tries', '0') end
keep(retention_ms, conversation, summaries, fold)
return 'ok'
