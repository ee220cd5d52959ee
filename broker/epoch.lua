-- Begin an epoch: an empty store, version 0, and the entry that tells every replica.
--
-- KEYS[1] log, KEYS[2] data, KEYS[3] head, KEYS[4] keys, KEYS[5] writes, KEYS[6] write_order: see append.lua
-- ARGV: "open" (only where there is no log) or "reset", write id, how many write ids to remember, and the epoch that a
-- lost log had reached as far as the caller knows, so that no position comes a second time
--
-- Returns {"begun" | "repeated" | "open", epoch, at}.

local mode, write_id, remember, after = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local head = redis.call('HMGET', KEYS[3], 'epoch', 'at')
if mode == 'open' and head[1] then return {'open', head[1], head[2]} end
if mode == 'reset' and not head[1] then return redis.error_reply('NOLOG the log has not been opened') end

local known = redis.call('HGET', KEYS[5], write_id)
if known then
  local epoch, at = known:match('^(%d+)-%d+ (%d+) ')
  return {'repeated', epoch, at}
end

local epoch = string.format('%.0f', math.max(tonumber(head[1] or 0), after) + 1)
local time = redis.call('TIME')
local at = time[1] .. string.format('%06d', time[2])
if tonumber(at) < tonumber(head[2] or 0) then at = head[2] end
local position = epoch .. '-0'

redis.call('XADD', KEYS[1], position,
  'op', 'epoch', 'key', '', 'value', '', 'write_id', write_id, 'at', at, 'traceparent', '')
redis.call('XTRIM', KEYS[1], 'MINID', '=', position) -- nothing of an earlier epoch is of use to anybody
redis.call('UNLINK', KEYS[2], KEYS[4])
redis.call('HSET', KEYS[3], 'epoch', epoch, 'version', 0, 'write_id', write_id, 'at', at, 'digest', string.rep('0', 40))

redis.call('HSET', KEYS[5], write_id, position .. ' ' .. at .. ' epoch')
redis.call('RPUSH', KEYS[6], write_id)
if redis.call('LLEN', KEYS[6]) > remember then
  redis.call('HDEL', KEYS[5], redis.call('LPOP', KEYS[6]))
end
return {'begun', epoch, at}
