-- Whether appends can be taken, found out without changing anything: a sentence that says why not, or nothing.
--
-- KEYS: see append.lua
-- ARGV: "append", or "commands", to find out only whether every command of every script is allowed
--
-- A write that the server refuses whatever it is (out of memory, read only, cannot save) is refused here too.

local missing = {}
local function need(...)
  if not redis.acl_check_cmd(...) then missing[#missing + 1] = (...) end
end
if redis.acl_check_cmd then -- from Redis 7.0 on
  local log, data, head, keys, writes, order = unpack(KEYS)
  need('TIME')
  need('LLEN', order)
  need('LPOP', order, 1)
  need('RPUSH', order, '')
  need('HGET', writes, '')
  need('HMGET', head, '')
  need('HSET', head, '', '')
  need('HDEL', data, '')
  need('ZADD', keys, 0, '')
  need('ZREM', keys, '')
  need('ZRANGEBYLEX', keys, '-', '+')
  need('UNLINK', data, keys)
  need('XADD', log, '*', '', '')
  need('XTRIM', log, 'MINID', '0-0')
  need('XRANGE', log, '-', '+')
  need('EXISTS', log)
  need('XINFO', 'STREAM', log)
end
if #missing > 0 then return 'its user may not run ' .. table.concat(missing, ', ') .. ' on the keys of this lab' end

if ARGV[1] == 'commands' then return '' end
redis.call('ZADD', KEYS[4], 'XX', 0, '') -- no key is empty, so that this adds nothing

local head = redis.call('HMGET', KEYS[3], 'epoch', 'version')
if not head[1] or redis.call('EXISTS', KEYS[1]) == 0 then return '' end
local position, stream = head[1] .. '-' .. head[2], redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #stream, 2 do
  if stream[i] == 'last-generated-id' and stream[i + 1] ~= position then
    -- XDEL and XSETID do not help from Redis 7.0 on: the newest ID stays that of the deleted entry.
    local cure = 'DEL ' .. KEYS[1] .. ' lets writes be taken again, and replicas take a snapshot'
    if #stream[i + 1]:match('^%d+') < 15 then cure = 'a new epoch begins after it within seconds' end
    return KEYS[1] .. ' has had an entry ' .. stream[i + 1] .. ', which is not of this lab, after ' .. position ..
      '; ' .. cure
  end
end
return ''
