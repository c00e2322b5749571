-- Count a try of the fold that is wanted, for the holder of the fence; after the `most`th the wish is given up. Tells the
-- session, up to where, by which model, and the tries before; nothing where no fold is wanted any more.
local conversation, fold, fence = unpack(KEYS)
local token, most = unpack(ARGV)

if redis.call('GET', fence) ~= token then return 'fenced' end
local session = redis.call('HGET', conversation, 'session')
local wished = redis.call('HMGET', fold, 'up_to', 'model', 'tries')
if not (session and wished[1]) then return {} end
if tonumber(wished[3]) >= tonumber(most) then
  redis.call('DEL', fold)
  return {}
end
redis.call('HINCRBY', fold, 'tries', 1)
return {session, unpack(wished)}
