"""
Parts of a connection below its messages: TCP keepalive, PEM files, TLS of clients, detection of other protocols.

Knows sockets, files and the standard library's TLS; knows no message and does not
import Twisted.  Each module stands by itself: start at `keepalive`, `pem`,
`client_tls` or `protocol_detection`.
"""
