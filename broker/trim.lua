-- Drop the log's oldest entries; return how many were dropped.
--
-- KEYS: see log.py
-- ARGV: "MINID" or "MAXLEN", and the oldest position or the number of entries to keep

local dropped = redis.call('XTRIM', KEYS[1], ARGV[1], '=', ARGV[2])
if dropped > 0 then recount(KEYS[1]) end
return dropped
