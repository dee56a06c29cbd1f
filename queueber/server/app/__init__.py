"""
The process: the service, its composition root, startup, shutdown, reload, and what supervisors are notified of.

Knows every other part of the server; nothing imports it but the Twisted
plugin.  Start at `service` for the life of a server and at `composition` for
how its parts are connected.
"""
