"""
What a running server shows: metrics, health pages, statistics, and where they are served.

Reads the other parts and changes none.  Start at `diagnostics` for what can be
read and at `endpoints` for where it is served.
"""
