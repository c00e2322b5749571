-- Stands before every script. An event arrives as JSON without its last brace: Lua's own
-- JSON would turn [] into {} and large integers into floats, so it is never decoded here.

local TRIM_EVERY, TRIMMED = 16, 64  -- events; entries that are let go at once
local NEAR = 16  -- messages
local TEMPORARY_MS = 3600000

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

-- How long a key of the conversation lives ('0' is for ever): what is doomed stays doomed, what is temporary goes soon.
local function lifetime(conversation, ms, deleted, temporary)
  if deleted then return redis.call('PTTL', conversation) end
  if temporary and (ms == '0' or tonumber(ms) > TEMPORARY_MS) then return TEMPORARY_MS end
  return ms
end

-- The history that the store's data belongs to. A start, a failover and a move to another node begin another one, and
-- what was acknowledged last may not be in it. '' where the server does not tell.
local function history()
  local told = redis.pcall('INFO', 'replication')
  return type(told) == 'string' and string.match(told, 'master_replid:(%x+)') or ''
end

-- Begin a new epoch: what clients were told in the one before may not be what is stored.
local function renew(conversation, log)
  local time = redis.call('TIME')
  local epoch = string.format('%x%05x', tonumber(time[1]), tonumber(time[2]))
  redis.call('HSET', conversation, 'epoch', epoch, 'offset', '0', 'history', history())
  redis.call('DEL', log)
  return epoch
end

-- Before anything is placed: a new epoch where the store may have lost something since the last time. Returns the epoch.
local function settle(conversation, log, epoch, before)
  local now = history()
  if before == now then return epoch end
  if before and before ~= '' and now ~= '' then return renew(conversation, log) end
  redis.call('HSET', conversation, 'history', now)
  return epoch
end

-- Now and then, let go of what is too old, and of the oldest while the log is too large. `kept` of an entry is how
-- many bytes were ever logged up to its end.
local function trim(log, now_ms, log_ms, log_bytes, kept)
  for _ = 1, TRIMMED do
    local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', '1')[1]
    if not oldest then return end
    local at, sum = tonumber(oldest[2][4]), tonumber(oldest[2][6])
    if not sum or (now_ms - at < log_ms and kept - sum < log_bytes) then return end
    redis.call('XDEL', log, oldest[1])
  end
end

-- Assign the next place, append to the log, publish: one step. Returns the offset.
local function place(conversation, log, channel, body, log_ms, log_entries, log_bytes)
  local deleted, temporary, epoch, before = unpack(redis.call('HMGET', conversation, 'deleted', 'temporary', 'epoch', 'history'))
  epoch = settle(conversation, log, epoch, before)
  local offset = redis.call('HINCRBY', conversation, 'offset', 1)
  local place = string.format('%d', offset)
  local frame = body .. ',"at":{"epoch":"' .. epoch .. '","offset":' .. place .. '}}'
  local time = redis.call('TIME')
  local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  local kept = redis.call('HINCRBY', conversation, 'logged', #frame)
  redis.call('XADD', log, 'MAXLEN', '~', log_entries, place .. '-0', 'frame', frame,
    'ms', string.format('%d', now_ms), 'sum', string.format('%d', kept))
  if offset % TRIM_EVERY == 0 then trim(log, now_ms, tonumber(log_ms), tonumber(log_bytes), kept) end
  redis.call('PEXPIRE', log, lifetime(conversation, log_ms, deleted, temporary))
  redis.call(PUBLISH, channel, envelope(channel, epoch, offset, frame))
  return offset
end

-- Keep what a conversation owns for as long as its history is kept ('0' is for ever).
local function keep(retention_ms, conversation, ...)
  local ms = lifetime(conversation, retention_ms, unpack(redis.call('HMGET', conversation, 'deleted', 'temporary')))
  for _, key in ipairs({conversation, ...}) do
    if ms == '0' then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, ms) end
  end
end

-- The message above one, '' for the root; nothing where there is no such message.
local function parent_of(tree, id)
  local node = redis.call('HGET', tree, id)
  return node and string.match(node, ' (.*)$')
end

-- Let every ancestor's choice lead to a message, up to and including the choice of `last`.
local function choose(tree, id, last)
  while id ~= '' do
    local parent = parent_of(tree, id)
    redis.call('HSET', tree, 'chosen:' .. parent, id)
    if id == last then return end
    id = parent
  end
end

-- Add a message to the tree, below a parent.
local function join(conversation, tree, id, role, parent)
  redis.call('HSET', tree, id, role .. ' ' .. parent)
  local siblings = redis.call('HGET', tree, 'children:' .. parent)
  redis.call('HSET', tree, 'children:' .. parent, siblings and (siblings .. ' ' .. id) or id)
  redis.call('HINCRBY', conversation, 'revision', 1)
end

-- Make the branch that ends in a message the current one: one step, where its parent is near the end of that.
local function turn_to(conversation, tree, id, parent)
  local at, last = redis.call('HGET', conversation, 'tip'), ''
  for _ = 1, NEAR do
    if at == parent then last = id end
    if not at or at == '' or last ~= '' then break end
    at = parent_of(tree, at)
  end
  choose(tree, id, last)
  redis.call('HSET', conversation, 'tip', id)
end

-- A prompt that waits: its id, its answer's, and the model that is to answer.
local function waiting(entry)
  return string.match(entry, '^(%S+) (%S+) (.*)$')
end

-- Whether an answer that begins moves the current branch to itself: from where its prompt is, but not away from
-- what leads through it already, nor from a prompt that waits.
local function moves(conversation, tree, queue, answer, prompt)
  local id = redis.call('HGET', conversation, 'tip')
  if id == answer then return false end
  for _, entry in ipairs(redis.call('LRANGE', queue, '0', '-1')) do
    local _, to_come = waiting(entry)
    if to_come == id then return false end
  end
  while id and id ~= '' do
    if id == answer then return false end
    if id == prompt then return true end
    id = parent_of(tree, id)
  end
  return false
end

-- Add an answer that begins for the first time.
local function begin(conversation, messages, tree, queue, answer, prompt)
  if redis.call('HEXISTS', messages, answer) == 1 then return end
  join(conversation, tree, answer, 'assistant', prompt)
  if moves(conversation, tree, queue, answer, prompt) then turn_to(conversation, tree, answer, prompt) end
end

-- Make a turn: an answer that anybody may take. More fields may follow.
local function open(turn, answer, prompt, model, now, ...)
  redis.call('HSET', turn, 'answer', answer, 'prompt', prompt, 'model', model, 'attempt', '0', 'since', now, ...)
end

-- Make the branch through a message the current one, down to its last chosen descendant. Places conversation.selected,
-- which names the last message that is there: the end may be an answer to come.
local function select(conversation, messages, tree, log, message, body, channel, log_ms, log_entries, log_bytes)
  choose(tree, message, '')
  local tip, last = message, message
  local chosen = redis.call('HGET', tree, 'chosen:' .. tip)
  while chosen do
    tip = chosen
    if redis.call('HEXISTS', messages, tip) == 1 then last = tip end
    chosen = redis.call('HGET', tree, 'chosen:' .. tip)
  end
  redis.call('HSET', conversation, 'tip', tip)
  redis.call('HINCRBY', conversation, 'revision', 1)
  place(conversation, log, channel, body .. last .. '"', log_ms, log_entries, log_bytes)
end

local function owned(conversation, session)
  return redis.call('HGET', conversation, 'session') == session and redis.call('HEXISTS', conversation, 'deleted') == 0
end
