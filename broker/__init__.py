"""The replication log on Redis streams: positions, entries, the scripts that write them, delays and the delay line."""
