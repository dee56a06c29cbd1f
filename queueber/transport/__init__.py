"""
Parts of both ends of a connection: TCP keepalive, PEM files, and the detection of other protocols on the same port.

It knows no message and does not import Twisted.
"""
