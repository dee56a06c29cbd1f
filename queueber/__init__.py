"""
Queueber: a durable work-queue server, its clients, its workers and its command line.

The server is in `server`, above `broker` (decisions), `store` (disk), `rpc` and `capnp` (bytes).  Programs use
`client` (Twisted), `aio` or `sync`, and above these `worker` and `tasks`.  This module imports none of them.
"""

__version__ = "0.1.0"
