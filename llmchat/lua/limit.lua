-- Take from an allowance that fills evenly (GCRA). The key holds when it will be full again, in ms by the server's
-- clock. Returns 0, or the ms to wait before so much can be had; then nothing is taken.
local full_key = unpack(KEYS)
local unit_ms, most, cost, look = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local full = math.max(tonumber(redis.call('GET', full_key) or 0), now) + unit_ms * math.min(cost, most)
local wait = full - unit_ms * most - now
if wait >= 1 then return math.ceil(wait) end  -- less is the rounding of what is kept
if not look then redis.call('SET', full_key, string.format('%.3f', full), 'PX', math.ceil(full - now)) end
return 0
