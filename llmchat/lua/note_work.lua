-- Put a conversation on the index of work, by the server's clock: it is one for all instances.
local work = unpack(KEYS)
local conversation = unpack(ARGV)
local time = redis.call('TIME')
redis.call('ZADD', work, string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000)), conversation)
