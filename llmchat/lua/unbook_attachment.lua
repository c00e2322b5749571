-- Count a file no more. `index` and `total` as of book_attachment.lua; `entry` is "bytes id".
local index, total = unpack(KEYS)
local entry = unpack(ARGV)

if redis.call('ZREM', index, entry) == 1 then redis.call('DECRBY', total, string.match(entry, '^%d+')) end
if redis.call('EXISTS', index) == 0 then redis.call('DEL', total) end
return 1
