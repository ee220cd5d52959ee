-- Prepended to epoch.lua, trim.lua and place.lua: keep `lag` in XINFO GROUPS right, from Redis 7.0 on.
--
-- `lag` is, at every moment, the number of entries that the log holds after the last one delivered to the group. Within
-- an epoch that is the head's version minus the delivered one. Entries dropped by a reset or a trim do not count: they
-- cannot be delivered any more. `lag` is nil only until the group reads up to the end of a log that another program has
-- deleted entries from, or added entries to with IDs that leave out versions.
--
-- A server calculates it from the group's counter of entries read. On its own it has no counter for a group placed in
-- mid-stream, counts on from a wrong one after a trim of undelivered entries, and, in Redis 7.0, forgets reads when it
-- restarts. Setting the counter does not move the group, so it is safe while the replica reads.

local function named(reply)
  local found = {}
  for i = 1, #reply, 2 do found[reply[i]] = reply[i + 1] end
  return found
end

local EPOCHS_MAX = 100

local function parts(id)
  local epoch, version = id:match('^(%d+)-(%d+)$')
  return tonumber(epoch), tonumber(version)
end

-- Return how many entries the log holds after a position, calculated from the first and last version of each epoch; nil
-- if the log's length shows that versions in between are missing.
local function entries_after(LOG, length, position)
  local epoch, version = parts(position)
  local all, after, from = 0, 0, '-'
  for _ = 1, EPOCHS_MAX do
    local oldest = redis.call('XRANGE', LOG, from, '+', 'COUNT', 1)[1]
    if not oldest then break end
    local found, first = parts(oldest[1])
    local name = oldest[1]:match('^%d+') -- as a number it might be inexact if another program chose it
    local newest = redis.call('XREVRANGE', LOG, name, name, 'COUNT', 1)[1][1] -- of this epoch
    local _, last = parts(newest)
    local count = last - first + 1
    all = all + count
    if found > epoch then
      after = after + count
    elseif found == epoch then
      after = after + math.min(count, math.max(0, last - version))
    end
    from = '(' .. newest
  end
  return all == length and after or nil
end

local function stream_of(LOG) return named(redis.call('XINFO', 'STREAM', LOG)) end

-- Place a group after a position, with its counter if that is known.
local function place(LOG, stream, group, position)
  local added, after = stream['entries-added'], entries_after(LOG, stream['length'], position)
  local counter = added and after and {'ENTRIESREAD', string.format('%.0f', added - after)} or {}
  redis.call('XGROUP', 'SETID', LOG, group, position, unpack(counter))
end

-- Set the counter of every group, and leave the groups where they are.
local function recount(LOG)
  if redis.call('EXISTS', LOG) == 0 then return end
  local stream = stream_of(LOG)
  if not stream['entries-added'] then return end -- Redis 6.2 has no counters
  for _, reply in ipairs(redis.call('XINFO', 'GROUPS', LOG)) do
    local group = named(reply)
    place(LOG, stream, group['name'], group['last-delivered-id'])
  end
end
