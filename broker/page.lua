-- Read one page of the primary's store in key order, with its position: one consistent cut.
--
-- KEYS: see log.py
-- ARGV: the key to start after ("" for the beginning), maximum number of keys, maximum bytes of records
--
-- Returns {epoch, version, write id, at, "more" | "end", key, record, key, record, …}.

local _, DATA, HEAD, SORTED_KEYS = unpack(KEYS)
local after, limit, max_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local head = redis.call('HMGET', HEAD, 'epoch', 'version', 'write_id', 'at')
if not head[1] then return redis.error_reply('NOLOG the log has not been opened') end

local from = after == '' and '-' or '(' .. after
local keys = redis.call('ZRANGEBYLEX', SORTED_KEYS, from, '+', 'LIMIT', 0, limit + 1)
local page, bytes = {head[1], head[2], head[3], head[4], 'end'}, 0
for i, key in ipairs(keys) do
  if i > limit or bytes >= max_bytes then
    page[5] = 'more'
    break
  end
  local record = redis.call('HGET', DATA, key)
  bytes = bytes + #record
  page[#page + 1] = key
  page[#page + 1] = record
end
return page
