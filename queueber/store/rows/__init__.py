"""
The rows of the database: their keys, their values, and the store on an ordered key-value engine.

Knows no directory and no file.  Start at `keys` and `records` for the format,
then `kv_store` for how a commit becomes rows.
"""
