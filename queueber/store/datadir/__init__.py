"""
The data directory: its lock, its markers of clean shutdown and sync, and what a power cut leaves at the end of the log.

Start at `directory` for opening and locking, then `synced` and `torn_tail`.
"""
