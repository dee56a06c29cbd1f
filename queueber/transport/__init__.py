"""
Parts of both ends of a connection: TCP keepalive, PEM files, and the detection of other protocols on the same port.

Knows sockets and files; knows no message and does not import Twisted.  Each module
stands by itself: start at `keepalive`, `pem` or `protocol_detection`.
"""
