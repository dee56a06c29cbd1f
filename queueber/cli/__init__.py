"""
The command `queueber`: its subcommands, their arguments, and their output.

Knows a running server through `queueber.client`, and directories at rest through
`queueber.store`; contains rules of neither.  Start at `commands` for the list of
subcommands, `session` for the connection to a server, and `maintenance` for those
that read a data directory.
"""
