"""
What both ends of a connection need of the operating system: keepalive, PEM files, other protocols on the same port.

Knows no message and no Twisted.
"""
