-- Return 1 if the log has been opened on this server since it was restarted or became master.
--
-- KEYS: see log.py

return redis.call('HGET', KEYS[3], 'replication_id') == replication_ids() and 1 or 0
