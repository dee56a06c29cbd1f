"""
Maintenance of whole data directories: backup, restore, verification, inspection and recovery.

Nothing here changes the directory that it reads, or knows a running store.  Start at
`backup`.
"""
