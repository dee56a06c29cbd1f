"""
The path of a call: handlers, the dispatcher of polls, group commit, and the sweeper of expired leases.

Contains the clock, the ids and the storage threads that they use, too.  Knows
the broker and the store, but no socket.  Start at `handlers`, then read
`committer`.
"""
