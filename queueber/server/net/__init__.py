"""
Connections: listeners, TLS, the protocol of one connection, and the limits on time and memory of all of them.

It passes calls to the handlers it is given and knows no method.  Start with
`protocol` and `states` for one connection, and with `connections` for all.
"""
