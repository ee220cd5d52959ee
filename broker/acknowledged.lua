-- Return the groups that have acknowledged the entry with the ID ARGV[1] in the stream KEYS[1]. After groups.lua.

local LOG, ID = KEYS[1], ARGV[1]
local epoch, version = parts(ID)
local found = {}
for _, reply in ipairs(redis.call('XINFO', 'GROUPS', LOG)) do
  local group = named(reply)
  local delivered_epoch, delivered = parts(group['last-delivered-id'])
  -- In another epoch it is unknown whether the entry was applied: a reset acknowledges what it invalidates.
  if delivered_epoch == epoch and delivered >= version then
    if #redis.call('XPENDING', LOG, group['name'], ID, ID, 1) == 0 then found[#found + 1] = group['name'] end
  end
end
return found
