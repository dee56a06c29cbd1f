"""
Rows: their keys, their values, the version of the format, and the store on top of an ordered key-value engine.

Knows no directory and no file.  Start at `keys` and `records` for the layout,
then `kv_store` for how the broker's writes become rows.
"""
