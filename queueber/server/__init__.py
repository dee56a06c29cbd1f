"""
The server: Twisted carries bytes, threads access the disk, the broker decides.

Knows every layer below it; contains no rule of a queue.  `core` is the path of a
call, `net` the connections, `config` the options, `monitoring` and `admin` the
interfaces for operators, and `app` the process.  Start at `app.composition`, which
connects the parts.
"""
