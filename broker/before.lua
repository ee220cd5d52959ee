-- Find the newest position committed at least a given time ago, by bisection: an entry's ID is its version, and times
-- grow with versions.
--
-- KEYS: log and head, see log.py
-- ARGV: age in microseconds
--
-- Returns {epoch, version, head version}. If the log no longer goes back that far: the version before its oldest entry
-- of the epoch, which was committed before all remaining entries.

local LOG, HEAD = unpack(KEYS)

local head = redis.call('HMGET', HEAD, 'epoch', 'version', 'at', 'offset')
if not head[1] then return redis.error_reply('NOLOG the log has not been opened') end
local epoch, newest, at, offset = head[1], tonumber(head[2]), tonumber(head[3]), head[4] or 0
local time = redis.call('TIME')
local limit_us = math.max(time[1] * 1000000 + time[2] + offset, at) - tonumber(ARGV[1])

local function entry(version) -- the oldest entry of the epoch from this version on: its version and its time
  local found = redis.call('XRANGE', LOG, epoch .. '-' .. string.format('%.0f', version), '+', 'COUNT', 1)[1]
  if not found then return nil end
  local fields = found[2]
  for i = 1, #fields, 2 do
    if fields[i] == 'at' then return tonumber(string.match(found[1], '%d+$')), tonumber(fields[i + 1]) end
  end
end

local oldest = entry(1)
local low, high = (oldest or newest + 1) - 1, newest -- low is old enough, or before the log; above high is too new
while low < high do
  local middle = math.floor((low + high + 1) / 2)
  local version, committed_us = entry(middle)
  if committed_us and committed_us <= limit_us then low = version else high = middle - 1 end
end
return {epoch, string.format('%.0f', low), head[2]}
