"""
The path of a call: handlers, the dispatcher of polls, group commit, the sweeper of expired leases.

With the clock, the ids, and the pool of storage threads that they use.  Knows
the broker and the store, and nothing of sockets.  Start at `handlers`,
then `committer`.
"""
