-- Take from allowances that fill evenly (GCRA), of each what is asked, or of none. A key holds when its allowance will be
-- full again, in ms by the server's clock. Of each in turn: the ms that one takes to fill, how many there are, how many are
-- wanted, and how: 'take'; 'look', which takes nothing; 'owe' for what was had already, to at most as much again.
-- Returns 0, or the ms to wait before all of it can be had.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local longest, taken = 0, {}

for at, key in ipairs(KEYS) do
  local first = 4 * (at - 1)
  local unit_ms, most, cost = tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2]), tonumber(ARGV[first + 3])
  local mode = ARGV[first + 4]
  local full = math.max(tonumber(redis.call('GET', key) or 0), now) + unit_ms * math.min(cost, most)
  local wait = full - unit_ms * most - now
  if wait >= 1 then  -- less is the rounding of what is kept
    longest = math.max(longest, math.ceil(wait))
  end
  if mode ~= 'look' then
    table.insert(taken, { key, math.min(full, now + 2 * unit_ms * most), mode })
  end
end

for _, each in ipairs(taken) do
  local key, full, mode = unpack(each)
  if mode == 'owe' or longest == 0 then
    redis.call('SET', key, string.format('%.3f', full), 'PX', math.ceil(full - now))
  end
end
return longest
