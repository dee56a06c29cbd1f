"""
Connections: listeners, TLS, the protocol of one connection, and the limits on time and memory of all of them.

Passes calls to the handlers it is given and knows no method.  Start at
`protocol` for one connection and at `connections` for all.
"""
