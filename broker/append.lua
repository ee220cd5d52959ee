-- Append one change: the next version, the primary's store and the stream entry, all or nothing.
--
-- KEYS[1] log          stream  the history; an entry's ID is its position
-- KEYS[2] data         hash    key -> {"version","write_id","at","digest","value"}, the value last, as it was written
-- KEYS[3] head         hash    epoch, version, write_id, at, digest
-- KEYS[4] keys         zset    every key with score 0, so that pages can be read in order
-- KEYS[5] writes       hash    write id -> "epoch-version at contribution", so that a retry is the same write
-- KEYS[6] write_order  list    write ids, oldest first, so that the hash above stays bounded
--
-- ARGV: op, key, value, write id, traceparent, how many write ids to remember, and the SHA-1 of write id, key and value:
-- what the change contributes to the digest (broker/digest.py), and how a retry is told from another change
--
-- Called with "load" alone, and no keys, it does nothing but stay in the server's cache, by which ReplicationLog.open
-- says that this server may take appends.
--
-- Returns {"applied" | "repeated", epoch, version, at}, {"missing"} or {"reused"}.

if ARGV[1] == 'load' then return 'loaded' end

local op, key, value, write_id = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local traceparent, remember, contribution = ARGV[5], tonumber(ARGV[6]), ARGV[7]

-- sum - gone + come, modulo 2^160, on 40 hexadecimal digits: five limbs of 32 bits, which a double holds exactly.
local function shift(sum, gone, come)
  local out, carry = '', 0
  for i = 33, 1, -8 do
    local limb = tonumber(sum:sub(i, i + 7), 16) + carry
    if gone then limb = limb - tonumber(gone:sub(i, i + 7), 16) end
    if come then limb = limb + tonumber(come:sub(i, i + 7), 16) end
    carry = math.floor(limb / 4294967296)
    out = string.format('%08x', limb % 4294967296) .. out
  end
  return out
end

local head = redis.call('HMGET', KEYS[3], 'epoch', 'version', 'at', 'digest')
if not head[1] then return redis.error_reply('NOLOG the log has not been opened') end

local known = redis.call('HGET', KEYS[5], write_id)
if known then
  local epoch, version, at, print = known:match('^(%d+)-(%d+) (%d+) (.*)$')
  if print ~= contribution then return {'reused'} end
  return {'repeated', epoch, version, at}
end

local old = redis.call('HGET', KEYS[2], key)
if op == 'delete' and not old then return {'missing'} end

local epoch, version = head[1], string.format('%.0f', tonumber(head[2]) + 1)
local time = redis.call('TIME')
local at = time[1] .. string.format('%06d', time[2])
if tonumber(at) < tonumber(head[3]) then at = head[3] end -- the server's clock went back; the history must not
local position = epoch .. '-' .. version

redis.call('XADD', KEYS[1], position,
  'op', op, 'key', key, 'value', value, 'write_id', write_id, 'at', at, 'traceparent', traceparent)

local gone, come = old and old:match('^{"version":%d+,"write_id":"[^"]*","at":%d+,"digest":"(%x+)"')
if op == 'set' then
  come = contribution
  redis.call('HSET', KEYS[2], key, '{"version":' .. version .. ',"write_id":"' .. write_id .. '","at":' .. at ..
    ',"digest":"' .. contribution .. '","value":' .. value .. '}')
  if not old then redis.call('ZADD', KEYS[4], 0, key) end
else
  redis.call('HDEL', KEYS[2], key)
  redis.call('ZREM', KEYS[4], key)
end
redis.call('HSET', KEYS[3], 'version', version, 'write_id', write_id, 'at', at, 'digest', shift(head[4], gone, come))

redis.call('HSET', KEYS[5], write_id, position .. ' ' .. at .. ' ' .. contribution)
redis.call('RPUSH', KEYS[6], write_id)
if redis.call('LLEN', KEYS[6]) > remember then
  redis.call('HDEL', KEYS[5], redis.call('LPOP', KEYS[6]))
end
return {'applied', epoch, version, at}
