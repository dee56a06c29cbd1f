"""
The data directory: its lock, its state, the database in it, copies of its files, and the end of its log.

Knows files and RocksDB; of the rows it knows only the marks of the clocks.  Start at
`directory` for states and locking, then `database` for opening RocksDB, `copying`
for copies and read-only views, `synced` for how far the log is known to be on disk,
and `torn_tail` for what a power cut leaves at its end.
"""
