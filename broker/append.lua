-- Append changes, one after another: for each the next version, the primary's store and the stream entry. All of them
-- happen or, if the server refuses, none: everything is read and decided before the first write. Writes that the server
-- can still refuse come first: forgetting old write ids, needed only above a certain length, and XADD, which fails if a
-- foreign entry is ahead of the log. check.lua tests whether every command is allowed.
--
-- KEYS: see log.py
-- ARGV: how many write ids to remember, how many copies are awaited, and for each change op, key, value, write id, traceparent, and the SHA-1 of
-- write id, key and value: its contribution to the digest (entry.py), which also distinguishes a retry from another change
--
-- Refuses (UNVERIFIED) on a server on which the log was not opened: see server.lua.
--
-- Returns for each change {"applied" | "repeated", epoch, version, at}, {"missing"} or {"reused"}.
--
-- Example: the log is at 1-7, key k has a record of version 5 with contribution C5, and the changes are "set k 1" with
-- write id a and contribution Ca, then "set k 2" with b and Cb:
--
--                   before             after a            after b
--   version         7                  8                  9
--   store[k]        5, C5              8, Ca              9, Cb              only the last is written to DATA
--   sum (digest)    D                  D - C5 + Ca        D - C5 + Cb
--   entries                            1-8                1-8, 1-9           both are added to LOG
--   own                                a: 1-8             a: 1-8, b: 1-9     both are added to WRITES
--
-- If b came again as a third change, own[b] would yield {"repeated", 1, 9, at}, and nothing would change.

local LOG, DATA, HEAD, SORTED_KEYS, WRITES, WRITE_ORDER = unpack(KEYS)
local REMEMBERED, COPIES = tonumber(ARGV[1]), tonumber(ARGV[2])
local FIRST, FIELDS = 3, 6 -- the first change, and the fields of each

-- Read.

local head = redis.call('HMGET', HEAD, 'epoch', 'version', 'at', 'digest', 'offset', 'replication_id')
if not head[6] or head[6] ~= replication_ids() then return unverified() end
local epoch, version, at, digest, offset = head[1], tonumber(head[2]), head[3], head[4], head[5] or 0
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2] + offset
if now_us > tonumber(at) then at = string.format('%.0f', now_us) end -- the history must not follow a clock set back

local ids, keys = {}, {}
for first = FIRST, #ARGV, FIELDS do
  keys[#keys + 1], ids[#ids + 1] = ARGV[first + 1], ARGV[first + 3]
end
local known_ids = redis.call('HMGET', WRITES, unpack(ids))
local before = redis.call('HMGET', DATA, unpack(keys))
local remembered = redis.call('LLEN', WRITE_ORDER)

-- Decide.

local store = {} -- after the changes so far: key -> record, or false if it is missing
for n, key in ipairs(keys) do store[key] = before[n] end
local entries = {} -- as XADD takes them
local own, new_writes, new_ids = {}, {}, {} -- write id -> its line in WRITES; the same as HSET and as RPUSH take it

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
add(1, digest)

local function append(known, op, key, value, write_id, traceparent, contribution)
  if known then
    local known_epoch, known_version, known_at, print = known:match('^(%d+)-(%d+) (%d+) (.*)$')
    if print ~= contribution then return {'reused'} end
    return {'repeated', known_epoch, known_version, known_at}
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
  new_writes[#new_writes + 1], new_writes[#new_writes + 2] = write_id, own[write_id]
  new_ids[#new_ids + 1] = write_id
  return {'applied', epoch, number, at}
end

local answers = {}
for n, write_id in ipairs(ids) do
  local first = FIRST + FIELDS * (n - 1)
  answers[n] = append(known_ids[n] or own[write_id], unpack(ARGV, first, first + FIELDS - 1))
end
if #new_ids == 0 then
  -- WAIT counts the replicas that have what its connection wrote last, so a retry must write something.
  if COPIES > 0 then
    redis.call('ZREM', SORTED_KEYS, '') -- see below
    redis.call('HSET', HEAD, 'epoch', epoch)
  end
  return answers
end

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

-- Write. A server without memory allows everything after a first write that takes none, so that deletes can free some.

if #records == 0 then redis.call('ZREM', SORTED_KEYS, '') end

local beyond = math.min(remembered, remembered + #new_ids - REMEMBERED)
if beyond > 0 then redis.call('HDEL', WRITES, unpack(redis.call('LPOP', WRITE_ORDER, beyond))) end
for _, entry in ipairs(entries) do redis.call('XADD', LOG, unpack(entry)) end
if #records > 0 then redis.call('HSET', DATA, unpack(records)) end
if #appeared > 0 then redis.call('ZADD', SORTED_KEYS, unpack(appeared)) end
if #gone > 0 then
  redis.call('HDEL', DATA, unpack(gone))
  redis.call('ZREM', SORTED_KEYS, unpack(gone))
end

digest = ''
for limb = 1, 5 do digest = string.format('%08x', sum[limb]) .. digest end
redis.call('HSET', HEAD, 'version', string.format('%.0f', version), 'write_id', new_ids[#new_ids], 'at', at,
  'digest', digest)
redis.call('HSET', WRITES, unpack(new_writes))
redis.call('RPUSH', WRITE_ORDER, unpack(new_ids))
return answers
