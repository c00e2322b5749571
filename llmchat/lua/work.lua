-- Read the index of work: the time, the history that the store's data belongs to, and the first entries.
local work = unpack(KEYS)
local last = unpack(ARGV)
return {redis.call('TIME'), history(), redis.call('ZRANGE', work, '0', last, 'WITHSCORES')}
