-- Append changes, one after another: for each the next version, the primary's store and the stream entry. All of what is
-- asked for happens, or, where the server refuses, nothing: everything is read and decided before the first write. What
-- may be refused for itself comes first then: forgetting old write ids, which is needed from some length on only, and
-- XADD, which a foreign entry ahead of the log stands in the way of. That every command is allowed, check.lua tells.
--
-- KEYS[1] log          stream  the history; an entry's ID is its position
-- KEYS[2] data         hash    key -> {"version","write_id","at","digest","value"}, the value last, as it was written
-- KEYS[3] head         hash    epoch, version, write_id, at, digest; lab: see epoch.lua; offset: see steady.lua;
--                            doubt, after the end of the log's file was cut off and until an epoch begins
-- KEYS[4] keys         zset    every key with score 0, so that pages can be read in order
-- KEYS[5] writes       hash    write id -> "epoch-version at contribution", so that a retry is the same write
-- KEYS[6] write_order  list    write ids, oldest first, so that the hash above stays bounded
--
-- ARGV: how many write ids to remember, and for each change op, key, value, write id, traceparent, and the SHA-1 of write
-- id, key and value: what it contributes to the digest (broker/digest.py), and how a retry is told from another change
--
-- Called with "load" alone, and no keys, it does nothing but stay in the server's cache, by which ReplicationLog.open
-- says that this server may take appends.
--
-- Returns for each change {"applied" | "repeated", epoch, version, at}, {"missing"} or {"reused"}.

if ARGV[1] == 'load' then return 'loaded' end

local FIELDS = 6
local remember = tonumber(ARGV[1])

local head = redis.call('HMGET', KEYS[3], 'epoch', 'version', 'at', 'digest', 'offset')
if not head[1] then return redis.error_reply('NOLOG the log has not been opened') end
local epoch, version, at = head[1], tonumber(head[2]), head[3]
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2] + (head[5] or 0)
if now_us > tonumber(at) then at = string.format('%.0f', now_us) end -- the server's clock may go back; the history must not

-- The digest is a sum modulo 2^160: five limbs of 32 bits, the lowest first, which a double holds exactly.
local sum = {}
local function add(sign, digits)
  local carry = 0
  for limb = 1, 5 do
    local total = (sum[limb] or 0) + sign * tonumber(digits:sub(41 - 8 * limb, 48 - 8 * limb), 16) + carry
    carry = math.floor(total / 4294967296)
    sum[limb] = total % 4294967296
  end
end
add(1, head[4])

local ids, keys = {}, {}
for i = 2, #ARGV, FIELDS do
  keys[#keys + 1], ids[#ids + 1] = ARGV[i + 1], ARGV[i + 3]
end
local known = redis.call('HMGET', KEYS[5], unpack(ids))
local before = redis.call('HMGET', KEYS[2], unpack(keys))
local remembered = redis.call('LLEN', KEYS[6])

-- What has become of the store by the changes so far: key -> record, or false where it is missing.
local store = {}
for n, key in ipairs(keys) do store[key] = before[n] end
local entries = {} -- as XADD takes them
local own, news, order = {}, {}, {} -- of this call: write id -> what is to be known of it; the same as HSET and RPUSH take it

local function append(known, op, key, value, write_id, traceparent, contribution)
  if known then
    local epoch, version, at, print = known:match('^(%d+)-(%d+) (%d+) (.*)$')
    if print ~= contribution then return {'reused'} end
    return {'repeated', epoch, version, at}
  end
  local old = store[key]
  if op == 'delete' and not old then return {'missing'} end

  version = version + 1
  local number = string.format('%.0f', version)
  local position = epoch .. '-' .. number
  entries[#entries + 1] = {position,
    'op', op, 'key', key, 'value', value, 'write_id', write_id, 'at', at, 'traceparent', traceparent}
  if old then add(-1, old:match('^{"version":%d+,"write_id":"[^"]*","at":%d+,"digest":"(%x+)"')) end
  if op == 'set' then
    store[key] = '{"version":' .. number .. ',"write_id":"' .. write_id .. '","at":' .. at ..
      ',"digest":"' .. contribution .. '","value":' .. value .. '}'
    add(1, contribution)
  else
    store[key] = false
  end

  own[write_id] = position .. ' ' .. at .. ' ' .. contribution
  news[#news + 1], news[#news + 2] = write_id, own[write_id]
  order[#order + 1] = write_id
  return {'applied', epoch, number, at}
end

local answers = {}
for n, write_id in ipairs(ids) do
  local first = 2 + FIELDS * (n - 1)
  answers[n] = append(known[n] or own[write_id], unpack(ARGV, first, first + FIELDS - 1))
end
if #order == 0 then return answers end

local records, appeared, gone = {}, {}, {}
for n, key in ipairs(keys) do
  local record = store[key]
  if record and record ~= before[n] then
    records[#records + 1], records[#records + 2] = key, record
    if not before[n] then appeared[#appeared + 1], appeared[#appeared + 2] = 0, key end
  elseif before[n] and not record then
    gone[#gone + 1] = key
  end
end

-- A server without memory allows everything after a first write that takes none: a delete, which makes room, is taken.
if #records == 0 then redis.call('ZREM', KEYS[4], '') end

local beyond = math.min(remembered, remembered + #order - remember)
if beyond > 0 then redis.call('HDEL', KEYS[5], unpack(redis.call('LPOP', KEYS[6], beyond))) end
for _, entry in ipairs(entries) do redis.call('XADD', KEYS[1], unpack(entry)) end
if #records > 0 then redis.call('HSET', KEYS[2], unpack(records)) end
if #appeared > 0 then redis.call('ZADD', KEYS[4], unpack(appeared)) end
if #gone > 0 then
  redis.call('HDEL', KEYS[2], unpack(gone))
  redis.call('ZREM', KEYS[4], unpack(gone))
end

local digest = ''
for limb = 1, 5 do digest = string.format('%08x', sum[limb]) .. digest end
redis.call('HSET', KEYS[3], 'version', string.format('%.0f', version), 'write_id', order[#order], 'at', at,
  'digest', digest)
redis.call('HSET', KEYS[5], unpack(news))
redis.call('RPUSH', KEYS[6], unpack(order))
return answers
