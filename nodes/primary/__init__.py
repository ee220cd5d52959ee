"""The primary: accepts every write, appends it to the log, and maintains the log."""
