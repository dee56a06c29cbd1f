"""Recognises other protocols by the first bytes of a stream; no message of Cap'n Proto RPC begins like any of them."""

FIRST_BYTES = 8
"""So many bytes are enough to recognise each of them."""

TLS_REFUSAL = bytes.fromhex("15 03 01 00 02 02 0a")
"""The record with which TLS refuses what is none: a fatal alert, "unexpected message"."""

TLS_HANDSHAKE = b"\x16"
"""The first byte of everything with which a client begins TLS."""

_HTTP_VERBS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"TRACE ")
_BEGINNINGS = {
    "HTTP": (*_HTTP_VERBS, b"HTTP/", b"PRI * HT"),
    "SSH": (b"SSH-",),
    "the PROXY protocol": (b"PROXY ", b"\r\n\r\n\0\r\n"),
}
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")
"""An alert, or a part of a handshake."""


def protocol_of(first: bytes) -> str | None:
    """The protocol that a stream which begins with *first* speaks, for a person; None if it is none of those known."""
    if first.startswith(_TLS_RECORDS):
        return "TLS"
    return next((name for name, beginnings in _BEGINNINGS.items() if first.startswith(beginnings)), None)
