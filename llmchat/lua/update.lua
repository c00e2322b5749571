-- Set fields of a conversation that is there, and take away others: `dropped`, between spaces.
local session, dropped = unpack(ARGV)

if not owned(KEYS[1], session) then return 'not_found' end
for field in string.gmatch(dropped, '%S+') do redis.call('HDEL', KEYS[1], field) end
if #ARGV > 2 then redis.call('HSET', KEYS[1], unpack(ARGV, 3)) end
return 'ok'
