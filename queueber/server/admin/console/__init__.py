"""
The debugging console: a Python prompt inside the running server.

`access` says who may reach it, `session` is the prompt, `questions` is what it
can be asked.  Only `session` imports twisted.conch, which imports the reactor:
it is not to be imported before there is one.
"""
