-- Set fields of a conversation that is there.
if not owned(KEYS[1], ARGV[1]) then return 'not_found' end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 'ok'
