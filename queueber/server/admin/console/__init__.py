"""
The debugging console: a Python prompt inside the running server.

`access` decides who may connect, `session` is the prompt, and `commands` are its
functions.  Only `session` imports twisted.conch, which imports the reactor: it
must not be imported before a reactor is installed.
"""
