-- Begin an epoch: the entry that tells every replica, and an empty store with version 0, or the content as it is.
--
-- KEYS[1] log, KEYS[2] data, KEYS[3] head, KEYS[4] keys, KEYS[5] writes, KEYS[6] write_order: see append.lua
-- ARGV: "reset", or "open", which begins one only where there is no log, or it is behind; write id; how many write ids to
-- remember; epoch and version that somebody has seen; "doubt" where somebody may have seen more
--
-- Returns {"begun" | "repeated" | "goes on" | "open", epoch, version}.

local mode, write_id, remember = ARGV[1], ARGV[2], tonumber(ARGV[3])
local seen_epoch, seen_version, doubt = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]

local head = redis.call('HMGET', KEYS[3], 'epoch', 'version', 'at', 'lab', 'offset')
if mode == 'reset' and not head[1] then return redis.error_reply('NOLOG the log has not been opened') end
local last, version = tonumber(head[1] or 0), tonumber(head[2] or 0)
local behind = last < seen_epoch or (last == seen_epoch and version < seen_version)
local lab = head[4] or write_id:sub(1, 8) -- as long as there is a log: two labs never have one write id in common
if mode == 'open' and head[1] and not behind and doubt == '' then
  if not head[4] then redis.call('HSET', KEYS[3], 'lab', lab) end -- a log made by an earlier version
  return {'open', head[1], head[2]}
end

local known = redis.call('HGET', KEYS[5], write_id)
if known then
  local begun, at_version = known:match('^(%d+)-(%d+) ')
  return {'repeated', begun, at_version}
end

local epoch = string.format('%.0f', math.max(last, seen_epoch) + 1)
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2] + (head[5] or 0)
local at = string.format('%.0f', math.max(now_us, tonumber(head[3] or 0)))

local keeps = mode == 'open' and head[1]
local position = epoch .. '-' .. (keeps and head[2] or '0')
local value = keeps and '"' .. head[1] .. '-' .. head[2] .. '"' or ''
-- A server without memory allows everything after a first write that takes none; a reset makes room.
redis.call('ZREM', KEYS[4], '')
-- Forgetting comes before anything else is written: see append.lua.
if redis.call('LLEN', KEYS[6]) >= remember then
  redis.call('HDEL', KEYS[5], redis.call('LPOP', KEYS[6]))
end
redis.call('XADD', KEYS[1], position,
  'op', 'epoch', 'key', '', 'value', value, 'write_id', write_id, 'at', at, 'traceparent', '')
redis.call('HDEL', KEYS[3], 'doubt')
if keeps then
  redis.call('HSET', KEYS[3], 'epoch', epoch, 'lab', lab)
else
  redis.call('XTRIM', KEYS[1], 'MINID', '=', position) -- nothing of an earlier epoch is of use to anybody
  redis.call('UNLINK', KEYS[2], KEYS[4])
  redis.call('HSET', KEYS[3], 'epoch', epoch, 'version', 0, 'write_id', write_id, 'at', at,
    'digest', string.rep('0', 40), 'lab', lab)
end

redis.call('HSET', KEYS[5], write_id, position .. ' ' .. at .. ' epoch')
redis.call('RPUSH', KEYS[6], write_id)
return {keeps and 'goes on' or 'begun', epoch, keeps and head[2] or '0'}
