-- Read a branch from a message upwards, newest first, and all that belongs to it, in one step.
-- `from`: a message id, '' for the tip; `above` = '1' begins at its parent. Ends after `limit` messages or `bytes`
-- of them; of each record counts only what it has beyond `beside` bytes. `with_reasoning` = '1' reads that, too. With
-- `to_summary` = '1' it ends before a message that has a summary; where it ended earlier, it looks for one further up.
-- An answer to come has no record yet, and is passed over.
local conversation, messages, tree, turn, queue, text, reasoning, summaries = unpack(KEYS)
local session, from, above, limit, bytes, beside, with_reasoning, to_summary = unpack(ARGV)

if not owned(conversation, session) then return false end

local id = from
if from == '' then
  id = redis.call('HGET', conversation, 'tip')
else
  local parent = parent_of(tree, from)
  if not parent then return false end
  if above == '1' then id = parent end
end

local function summary_of(id)
  if to_summary ~= '1' or id == from then return nil end
  local found = redis.call('HGET', summaries, id)
  return found and {id, found} or nil
end

local records, reasonings, parents, siblings, summary, read = {}, {}, {}, {}, nil, 0
while id ~= '' and #records < tonumber(limit) do
  summary = summary_of(id)
  if summary then break end
  local record = redis.call('HGET', messages, id)
  local parent = parent_of(tree, id)
  if record then
    local reasons = with_reasoning == '1' and redis.call('HGET', messages, 'reasoning:' .. id) or ''
    read = read + math.max(0, #record - tonumber(beside)) + #reasons
    if #records > 0 and read > tonumber(bytes) then break end
    records[#records + 1] = record
    reasonings[#reasonings + 1] = reasons
    parents[#parents + 1] = parent
    siblings[#siblings + 1] = redis.call('HGET', tree, 'children:' .. parent)
  end
  id = parent
end
local above, gone_up = id, 0
while to_summary == '1' and not summary and above ~= '' and gone_up < tonumber(limit) do
  summary = summary_of(above)
  above = parent_of(tree, above)
  gone_up = gone_up + 1
end
return {redis.call('HGETALL', conversation), redis.call('HGETALL', turn), redis.call('GET', text) or '',
  redis.call('LRANGE', queue, '0', '-1'), redis.call('GET', reasoning) or '', records, reasonings, parents, siblings,
  id == '' and 0 or 1, summary or {}}
