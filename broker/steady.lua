-- Keep the log's time from going back with the server's clock: log time is that clock plus an offset, which is 0 unless
-- the clock was set back. Once the clock has caught up or is corrected, the offset is 0 again.
--
-- KEYS: see log.py
-- ARGV: the log's time by the caller's clock, or 0 if unknown; the difference in microseconds above which the offset
-- changes
--
-- Returns the offset before and after.

local HEAD = KEYS[3]

local head = redis.call('HMGET', HEAD, 'at', 'offset')
if not head[1] then return redis.error_reply('NOLOG the log has not been opened') end
local known, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local at, offset = tonumber(head[1]), tonumber(head[2] or 0)
local time = redis.call('TIME')
local server = time[1] * 1000000 + time[2]

local least, after = math.max(at, known), offset
if server + offset < least - tolerance or (offset > 0 and known > 0 and server + offset > known + tolerance) then
  after = math.max(0, least - server)
end
if after ~= offset then redis.call('HSET', HEAD, 'offset', string.format('%.0f', after)) end
return {string.format('%.0f', offset), string.format('%.0f', after)}
