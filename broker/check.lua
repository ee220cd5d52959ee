-- Check whether appends are possible, without changing anything. Returns the reason if not, else an empty string.
--
-- KEYS: see log.py
-- ARGV: "append", or "commands", to test only whether every command of every script is allowed
--
-- If the server refuses every write (out of memory, read only, cannot save), it refuses one here too.

local LOG, DATA, HEAD, SORTED_KEYS, WRITES, WRITE_ORDER = unpack(KEYS)

local missing = {}
local function need(...)
  if not redis.acl_check_cmd(...) then missing[#missing + 1] = (...) end
end
if redis.acl_check_cmd then -- since Redis 7.0
  need('TIME')
  need('INFO', 'replication')
  need('LLEN', WRITE_ORDER)
  need('LPOP', WRITE_ORDER, 1)
  need('RPUSH', WRITE_ORDER, '')
  need('HGET', WRITES, '')
  need('HMGET', HEAD, '')
  need('HSET', HEAD, '', '')
  need('HDEL', DATA, '')
  need('ZADD', SORTED_KEYS, 0, '')
  need('ZREM', SORTED_KEYS, '')
  need('ZRANGEBYLEX', SORTED_KEYS, '-', '+')
  need('UNLINK', DATA, SORTED_KEYS)
  need('XADD', LOG, '*', '', '')
  need('XTRIM', LOG, 'MINID', '0-0')
  need('XRANGE', LOG, '-', '+')
  need('XREVRANGE', LOG, '+', '-')
  need('EXISTS', LOG)
  need('XINFO', 'STREAM', LOG)
  need('XINFO', 'GROUPS', LOG)
  need('XPENDING', LOG, '', '-', '+', 1)
  need('XGROUP', 'SETID', LOG, '', '0')
end
if #missing > 0 then return 'its user is not allowed to run ' .. table.concat(missing, ', ') .. ' on the keys of this lab' end

if ARGV[1] == 'commands' then return '' end
redis.call('ZADD', SORTED_KEYS, 'XX', 0, '') -- no key is empty, so this adds nothing

local head = redis.call('HMGET', HEAD, 'epoch', 'version')
if not head[1] or redis.call('EXISTS', LOG) == 0 then return '' end
local position, stream = head[1] .. '-' .. head[2], redis.call('XINFO', 'STREAM', LOG)
for i = 1, #stream, 2 do
  if stream[i] == 'last-generated-id' and stream[i + 1] ~= position then
    -- XDEL and XSETID do not help since Redis 7.0: the newest ID stays that of the deleted entry.
    local cure = 'run DEL ' .. LOG .. ' to accept writes again; replicas then install a snapshot'
    if #stream[i + 1]:match('^%d+') < 15 then cure = 'a new epoch starts after it within seconds' end
    return LOG .. ' received a foreign entry ' .. stream[i + 1] .. ' after ' .. position ..
      '; ' .. cure
  end
end
return ''
