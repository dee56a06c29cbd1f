"""
Values of rows: an encoding byte, a checksum, and a struct of ``storage.capnp``.

The checksum is a CRC-32 of the row's key, the encoding byte and the struct, so
it detects a changed value as well as a valid value in the wrong row.  CRC-32 is
zlib's, the fastest in Python's library, and only has to detect faults that
RocksDB's own checksums did not.  Both encodings are always readable.
"""

from enum import StrEnum
from struct import Struct
from typing import Final, Protocol, TypeVar
from zlib import crc32

from queueber.capnp.packing import pack, unpack
from queueber.errors import RemoteProtocolError
from queueber.store.rows.keys import damaged
from queueber.units import counted


class Encoding(StrEnum):
    """The encoding of structs that are written from now on.  Existing rows may have either."""

    UNPACKED = "unpacked"
    PACKED = "packed"


UNPACKED: Final = 1
_PACKED: Final = 2
_ENCODING_BYTES = {byte: bytes((byte,)) for byte in (UNPACKED, _PACKED)}
UNPACKED_BYTE: Final = _ENCODING_BYTES[UNPACKED]
_PACKED_BYTE: Final = _ENCODING_BYTES[_PACKED]

HEAD: Final = Struct(">BI")
"""The encoding byte and the checksum."""


def encode_row(row_key: bytes, struct: bytes, encoding: Encoding = Encoding.UNPACKED) -> bytes:
    """Return the value for *struct* in the row at *row_key*."""
    # Compared, not looked up in a dict: hashing a member of an enumeration is a Python call.
    if encoding is Encoding.PACKED:
        struct = pack(struct)
        return HEAD.pack(_PACKED, crc32(struct, crc32(row_key + _PACKED_BYTE))) + struct
    return HEAD.pack(UNPACKED, crc32(struct, crc32(row_key + UNPACKED_BYTE))) + struct


_Fields_co = TypeVar("_Fields_co", covariant=True)


class _StructReader(Protocol[_Fields_co]):
    """A struct's layout or its `FlatStruct`."""

    def read(self, struct: bytes, /) -> _Fields_co:
        """Return the fields of *struct*."""


def decode_row(row_key: bytes, value: bytes, reader: _StructReader[_Fields_co]) -> _Fields_co:
    """
    Return the fields of the struct in *value*, the value of the row at *row_key*, as *reader* reads them.

    Raises:
        Damaged: the row is not exactly as it was written; the text names the table and the key.
    """
    if len(value) < HEAD.size:
        raise damaged(row_key, f"its value is only {counted(len(value), 'byte')} long")
    byte, checksum = HEAD.unpack_from(value)
    struct = value[HEAD.size :]
    if byte not in _ENCODING_BYTES:
        raise damaged(row_key, f"its encoding byte is {byte}")
    if crc32(struct, crc32(row_key + _ENCODING_BYTES[byte])) != checksum:
        raise damaged(row_key, "its checksum does not match")
    try:
        return reader.read(unpack(struct) if byte == _PACKED else struct)
    except RemoteProtocolError as error:
        raise damaged(row_key, str(error)) from error
