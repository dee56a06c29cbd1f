"""
Maintenance of whole data directories: backup, restore, verification, inspection and recovery.

Nothing here changes the directory that it reads.  Start at `backup`; `copying`
has what the others share.
"""
