"""
Metrics, health pages and statistics of a running server.

Reads the other parts and changes none; listens nowhere by itself.  Start at
`diagnostics` for the data, and at `metrics` and `web` for the pages.
"""
