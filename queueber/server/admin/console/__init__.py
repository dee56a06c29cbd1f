"""
The debugging console: a Python prompt inside the running server.

Knows the server through `Diagnostics`; listens nowhere by itself.  Start at `session`
for the connection and the login, then `prompt`, then `commands` for its functions.
`session` and `prompt` import twisted.conch, which imports the reactor: they must not
be imported before a reactor is installed.
"""
