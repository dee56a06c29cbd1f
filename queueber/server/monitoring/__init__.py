"""
Metrics, health pages and statistics of a running server.

Reads the other parts and changes none.  Start at `diagnostics` for the data, at
`endpoints` for the listeners, and at `metrics` and `web` for the pages.
"""
