-- Start an epoch: add the entry that notifies every replica, and empty the store (version 0) or keep its content.
--
-- KEYS: see log.py
-- ARGV: "reset", or "open", which starts an epoch only if the log is missing or behind; write id; how many write ids to
-- remember; the newest epoch and version that any node has seen; "doubt" if a node may have seen more, or "moves" if
-- that is so whenever this is not the server on which the log was opened last
--
-- Returns {"started" | "repeated" | "continued" | "open", epoch, version}.

local LOG, DATA, HEAD, SORTED_KEYS, WRITES, WRITE_ORDER = unpack(KEYS)
local mode, write_id, remembered = ARGV[1], ARGV[2], tonumber(ARGV[3])
local seen_epoch, seen_version, doubt = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]

local head = redis.call('HMGET', HEAD, 'epoch', 'version', 'at', 'lab', 'offset', 'replication_id')
local replication_id, replaced = replication_ids()
if mode == 'reset' and head[6] ~= replication_id then return unverified() end
-- A server that was a replica, or can have been one, may lack writes that no node has seen yet.
local other = head[6] and head[6] ~= replication_id and (doubt == 'moves' or replaced:find('[^0]') ~= nil)
local last, version = tonumber(head[1] or 0), tonumber(head[2] or 0)
local behind = last < seen_epoch or (last == seen_epoch and version < seen_version)
local lab = head[4] or write_id:sub(1, 8) -- as permanent as the log, and unique, as write ids are
if mode == 'open' and head[1] and not behind and not other and doubt ~= 'doubt' then
  redis.call('ZREM', SORTED_KEYS, '') -- a server without memory allows everything after a first write that takes none
  redis.call('HSET', HEAD, 'lab', lab, 'replication_id', replication_id)
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
redis.call('ZREM', SORTED_KEYS, '') -- as above; a reset frees memory
-- Forgetting comes before anything else is written: see append.lua.
if redis.call('LLEN', WRITE_ORDER) >= remembered then
  redis.call('HDEL', WRITES, redis.call('LPOP', WRITE_ORDER))
end
redis.call('XADD', LOG, position,
  'op', 'epoch', 'key', '', 'value', value, 'write_id', write_id, 'at', at, 'traceparent', '')
redis.call('HDEL', HEAD, 'doubt')
if keeps then
  redis.call('HSET', HEAD, 'epoch', epoch, 'lab', lab, 'replication_id', replication_id)
else
  redis.call('XTRIM', LOG, 'MINID', '=', position) -- entries of earlier epochs are no longer needed
  redis.call('UNLINK', DATA, SORTED_KEYS)
  redis.call('HSET', HEAD, 'epoch', epoch, 'version', 0, 'write_id', write_id, 'at', at,
    'digest', string.rep('0', 40), 'lab', lab, 'replication_id', replication_id)
end

redis.call('HSET', WRITES, write_id, position .. ' ' .. at .. ' epoch')
redis.call('RPUSH', WRITE_ORDER, write_id)
recount(LOG)
return {keeps and 'continued' or 'started', epoch, keeps and head[2] or '0'}
