"""
The debugging console: a Python prompt inside the running server.

Knows the server through `Diagnostics`; listens nowhere by itself.  Start at `access`
for the permitted addresses and logins, then `session` for a connection, then `prompt`
and `commands` for its functions.  `session` and `prompt` import twisted.conch, which
imports the reactor: they must not be imported before a reactor is installed.
"""
