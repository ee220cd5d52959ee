"""The primary: takes every write, appends it to the log, and keeps the log in order."""
