"""
The data directory: its lock, its state, the database in it, and the end of its log.

Start at `directory` for states and locking, then `database` for opening
RocksDB, `synced` for how far the log is known to be on disk, and `torn_tail`
for what a power cut leaves at its end.
"""
