-- Take from an allowance that fills evenly (GCRA). The key holds when it will be full again, in ms by the server's
-- clock. Returns 0, or the ms to wait before so much can be had; then nothing is taken, but where it was had already
-- ('owe', to at most as much again). With 'look', nothing is taken at all.
local full_key = unpack(KEYS)
local unit_ms, most, cost, mode = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local full = math.max(tonumber(redis.call('GET', full_key) or 0), now) + unit_ms * math.min(cost, most)
local wait = full - unit_ms * most - now
local refused = wait >= 1  -- less is the rounding of what is kept
if mode == 'owe' or (mode == 'take' and not refused) then
  full = math.min(full, now + 2 * unit_ms * most)
  redis.call('SET', full_key, string.format('%.3f', full), 'PX', math.ceil(full - now))
end
return refused and math.ceil(wait) or 0
