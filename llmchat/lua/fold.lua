-- Store a summary, for the holder of the fence, if the one that it came of is still what it was, and none of the answers
-- that it tells of went on meanwhile. At the message that was wished for, the wish is fulfilled.
local conversation, messages, tree, turn, summaries, fold, fence = unpack(KEYS)
local token, earlier, before, message, after, continued, retention_ms = unpack(ARGV)

if redis.call('GET', fence) ~= token then return 'fenced' end
if redis.call('HEXISTS', conversation, 'deleted') == 1 or redis.call('HEXISTS', messages, message) == 0 then
  redis.call('DEL', fold)
  return 'gone'
end
if earlier ~= '' and redis.call('HGET', summaries, earlier) ~= before then return 'moved' end
if (redis.call('HGET', conversation, 'continued') or '0') ~= continued then return 'moved' end
local running = redis.call('HGET', turn, 'answer')
for index = 8, #ARGV do
  if ARGV[index] == running then return 'moved' end
end

for index = 8, #ARGV do redis.call('HSET', tree, 'covered:' .. ARGV[index], '1') end
redis.call('HSET', summaries, message, after)
local wished = redis.call('HGET', fold, 'up_to')
if wished == message then redis.call('DEL', fold) elseif wished then redis.call('HSET', fold, 'tries', '0') end
keep(retention_ms, conversation, tree, summaries, fold)
return 'ok'
