"""
The process: the service, its composition root, startup, shutdown, reload, logs, and notifications to supervisors.

Knows every other part of the server, and is imported by none; handles no call.
Start at `service` for the life of a server, and at `composition` for the
connections between its parts.
"""
