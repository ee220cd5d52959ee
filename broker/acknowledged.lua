-- Return the names of the groups that have acknowledged the entry with the ID ARGV[1] in the stream KEYS[1].

local function parts(id)
  local epoch, version = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(epoch), tonumber(version)
end

local epoch, version = parts(ARGV[1])
local found = {}
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local fields = {}
  for at = 1, #group, 2 do
    fields[group[at]] = group[at + 1]
  end
  local delivered_epoch, delivered = parts(fields['last-delivered-id'])
  -- In another epoch it is unknown whether the entry was applied: a reset acknowledges what it invalidates.
  if delivered_epoch == epoch and delivered >= version then
    if #redis.call('XPENDING', KEYS[1], fields['name'], ARGV[1], ARGV[1], 1) == 0 then
      found[#found + 1] = fields['name']
    end
  end
end
return found
