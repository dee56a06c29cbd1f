"""Recognise other protocols by the first bytes of a stream.  No message of Cap'n Proto RPC begins with them."""

FIRST_BYTES = 8
"""Bytes that are enough to recognise each protocol."""

TLS_REFUSAL = bytes.fromhex("15 03 01 00 02 02 0a")
"""The record with which TLS refuses plaintext: a fatal alert, "unexpected message"."""

TLS_HANDSHAKE = b"\x16"
"""The first byte of a TLS ClientHello record."""

_HTTP_VERBS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"TRACE ")
_BEGINNINGS = {
    "HTTP": (*_HTTP_VERBS, b"HTTP/", b"PRI * HT"),
    "SSH": (b"SSH-",),
    "the PROXY protocol": (b"PROXY ", b"\r\n\r\n\0\r\n"),
}
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")
"""Records of type alert and handshake."""

_TEXT = frozenset(b"\t\r\n") | frozenset(range(0x20, 0x7F))
"""Four of them are, as the head of a message, more than 150,000,000 segments, which no limit can be set to."""


def protocol_of(first: bytes) -> str | None:
    """Return the name of the protocol of a stream that begins with *first*, or None if it is unknown."""
    if first.startswith(_TLS_RECORDS):
        return "TLS"
    name = next((name for name, beginnings in _BEGINNINGS.items() if first.startswith(beginnings)), None)
    if name is None and len(first) >= FIRST_BYTES and _TEXT.issuperset(first[:4]):
        return "a text protocol"
    return name
