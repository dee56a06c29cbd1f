"""
The Cap'n Proto encoding: schemas, struct layouts, readers and builders, packing, stream framing.

Knows no RPC message and no queue.  Start at `layout` for reading and building
structs by field name, at `reader` for the bounds every pointer is checked
against, and at `framing` for messages in a byte stream.
"""

from queueber.capnp.builder import DATA_BYTES_MAX
from queueber.capnp.layout import layout
from queueber.capnp.packing import pack, unpack

__all__ = ["DATA_BYTES_MAX", "layout", "pack", "unpack"]
