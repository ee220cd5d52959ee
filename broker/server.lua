-- Prepended to append.lua, epoch.lua and verified.lua: which server this is, and whether its log is verified.
--
-- A server has a new replication id whenever it was restarted or became master, and keeps it otherwise. The log's head
-- holds that of the server which had it when the log was opened. (The script cache proves nothing: a former master keeps
-- it, even through a full synchronization.)

-- Return the server's replication id, and that of the master that it replaced, all 0 if none.
local function replication_ids()
  local info = redis.call('INFO', 'replication')
  return info:match('master_replid:(%x+)'), info:match('master_replid2:(%x+)')
end

local function unverified()
  return redis.error_reply('UNVERIFIED this server was restarted or took over, and its log is not verified yet')
end
