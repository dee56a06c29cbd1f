"""
Work on whole data directories: backup, restore, verification, inspection and recovery.

Start at `backup`; none of these changes the directory it reads.
"""
