"""
The debugging console: a Python prompt inside the running server.

Knows the server through `Diagnostics`; listens nowhere by itself.  Start at `session`
for the prompt, then `commands` for its functions.  Only `session` imports
twisted.conch, which imports the reactor: it must not be imported before a reactor is
installed.
"""
