-- Start an epoch: add the entry that notifies every replica, and empty the store (version 0) or keep its content.
--
-- KEYS: see log.py
-- ARGV: "reset", or "open", which starts an epoch only if the log is missing or behind; write id; how many write ids to
-- remember; the newest epoch and version that any node has seen; "doubt" if a node may have seen more
--
-- Returns {"started" | "repeated" | "continued" | "open", epoch, version}.

local LOG, DATA, HEAD, SORTED_KEYS, WRITES, WRITE_ORDER = unpack(KEYS)
local mode, write_id, remembered = ARGV[1], ARGV[2], tonumber(ARGV[3])
local seen_epoch, seen_version, doubt = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]

local head = redis.call('HMGET', HEAD, 'epoch', 'version', 'at', 'lab', 'offset')
if mode == 'reset' and not head[1] then return redis.error_reply('NOLOG the log has not been opened') end
local last, version = tonumber(head[1] or 0), tonumber(head[2] or 0)
local behind = last < seen_epoch or (last == seen_epoch and version < seen_version)
local lab = head[4] or write_id:sub(1, 8) -- as permanent as the log, and unique, as write ids are
if mode == 'open' and head[1] and not behind and doubt == '' then
  if not head[4] then redis.call('HSET', HEAD, 'lab', lab) end -- a log created by an earlier version
  recount(LOG) -- the server may have restarted
  return {'open', head[1], head[2]}
end

local known = redis.call('HGET', WRITES, write_id)
if known then
  return {'repeated', known:match('^(%d+)-(%d+) ')}
end

local epoch = string.format('%.0f', math.max(last, seen_epoch) + 1)
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2] + (head[5] or 0)
local at = string.format('%.0f', math.max(now_us, tonumber(head[3] or 0)))

local keeps = mode == 'open' and head[1]
local position = epoch .. '-' .. (keeps and head[2] or '0')
local value = keeps and '"' .. head[1] .. '-' .. head[2] .. '"' or ''
-- A server without memory allows everything after a first write that takes none; a reset frees memory.
redis.call('ZREM', SORTED_KEYS, '')
-- Forgetting comes before anything else is written: see append.lua.
if redis.call('LLEN', WRITE_ORDER) >= remembered then
  redis.call('HDEL', WRITES, redis.call('LPOP', WRITE_ORDER))
end
redis.call('XADD', LOG, position,
  'op', 'epoch', 'key', '', 'value', value, 'write_id', write_id, 'at', at, 'traceparent', '')
redis.call('HDEL', HEAD, 'doubt')
if keeps then
  redis.call('HSET', HEAD, 'epoch', epoch, 'lab', lab)
else
  redis.call('XTRIM', LOG, 'MINID', '=', position) -- entries of earlier epochs are no longer needed
  redis.call('UNLINK', DATA, SORTED_KEYS)
  redis.call('HSET', HEAD, 'epoch', epoch, 'version', 0, 'write_id', write_id, 'at', at,
    'digest', string.rep('0', 40), 'lab', lab)
end

redis.call('HSET', WRITES, write_id, position .. ' ' .. at .. ' epoch')
redis.call('RPUSH', WRITE_ORDER, write_id)
recount(LOG)
return {keeps and 'continued' or 'started', epoch, keeps and head[2] or '0'}
