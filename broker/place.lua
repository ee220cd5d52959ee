-- Create a group, or move it, so that the entries after a position are delivered to it next.
--
-- KEYS: log, see log.py
-- ARGV: "CREATE" or "SETID", the group's name, the position

if ARGV[1] == 'CREATE' then redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[2], ARGV[3]) end
place(KEYS[1], stream_of(KEYS[1]), ARGV[2], ARGV[3])
