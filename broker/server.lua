-- Prepended to append.lua, epoch.lua and verified.lua: which server this is, and whether its log is verified.
--
-- A server has a new replication id whenever it was restarted or became master, and keeps it otherwise. The log's head
-- holds that of the server which had it when the log was opened. (The script cache proves nothing: a former master keeps
-- it, even through a full synchronization.)

local function replication() return redis.call('INFO', 'replication') end

local function replication_id() -- without a pattern, which would cost a third more
  local found = replication()
  local _, colon = found:find('master_replid:', 1, true)
  return found:sub(colon + 1, colon + 40)
end

local function unverified()
  return redis.error_reply('UNVERIFIED this server was restarted or took over, and its log is not verified yet')
end
