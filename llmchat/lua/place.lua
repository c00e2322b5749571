-- Stands before every script. An event arrives as JSON without its last brace: Lua's own
-- JSON would turn [] into {} and large integers into floats, so it is never decoded here.

local function uint32(n)
  return string.char(math.floor(n / 16777216) % 256, math.floor(n / 65536) % 256, math.floor(n / 256) % 256, n % 256)
end

-- The broadcaster's envelope: MessagePack of {type, conversation, epoch, offset, frame}. Ids have at most 64
-- characters, an epoch at most 31.
local function envelope(channel, epoch, offset, frame)
  local conversation = string.match(channel, '{conversation%.(.*)}')
  return '\133\164type\165event'
    .. '\172conversation\217' .. string.char(#conversation) .. conversation
    .. '\165epoch' .. string.char(160 + #epoch) .. epoch
    .. '\166offset\206' .. uint32(offset)
    .. '\165frame\198' .. uint32(#frame) .. frame
end

-- How long a key of the conversation lives: what is doomed stays doomed.
local function lifetime(conversation, ms)
  if redis.call('HEXISTS', conversation, 'deleted') == 1 then return redis.call('PTTL', conversation) end
  return ms
end

-- Assign the next place, append to the log, publish: one step. Returns the offset.
local function place(conversation, log, channel, body, log_ms, log_entries)
  local offset = redis.call('HINCRBY', conversation, 'offset', 1)
  local epoch = redis.call('HGET', conversation, 'epoch')
  local place = string.format('%d', offset)
  local frame = body .. ',"at":{"epoch":"' .. epoch .. '","offset":' .. place .. '}}'
  redis.call('XADD', log, 'MAXLEN', '~', log_entries, place .. '-0', 'frame', frame)
  redis.call('PEXPIRE', log, lifetime(conversation, log_ms))
  redis.call('PUBLISH', channel, envelope(channel, epoch, offset, frame))
  return offset
end

-- Keep what a conversation owns for as long as its history is kept ('0' is for ever).
local function keep(retention_ms, conversation, ...)
  local ms = lifetime(conversation, retention_ms)
  for _, key in ipairs({conversation, ...}) do
    if ms == '0' then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, ms) end
  end
end

-- Let every ancestor's choice lead to a message, up to and including the choice of `last`.
local function choose(tree, id, last)
  while id ~= '' do
    local parent = string.match(redis.call('HGET', tree, id), ' (.*)$')
    redis.call('HSET', tree, 'chosen:' .. parent, id)
    if id == last then return end
    id = parent
  end
end

-- Add a message to the tree and make its branch the current one.
local function grow(conversation, tree, id, role, parent)
  redis.call('HSET', tree, id, role .. ' ' .. parent)
  local siblings = redis.call('HGET', tree, 'children:' .. parent)
  redis.call('HSET', tree, 'children:' .. parent, siblings and (siblings .. ' ' .. id) or id)
  choose(tree, id, redis.call('HGET', conversation, 'tip') == parent and id or '')  -- one step, on the current branch
  redis.call('HSET', conversation, 'tip', id)
  redis.call('HINCRBY', conversation, 'revision', 1)
end

local function owned(conversation, session)
  return redis.call('HGET', conversation, 'session') == session and redis.call('HEXISTS', conversation, 'deleted') == 0
end
