"""
The path of a call: handlers, the dispatcher of polls, group commit, and the sweeper of expired leases.

Contains the clock, the ids, the storage threads, the counters and the rate limit of
log lines that they use, too.  Knows the broker and the store, but no socket.  Start
at `handlers`, then read `committer`.
"""
