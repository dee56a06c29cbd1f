"""
The Cap'n Proto encoding: schemas, struct layouts, readers and builders, packing, stream framing.

Knows no RPC message and no queue.  Start at `layout` for reading and building
structs by field name, at `reader` for the bounds every pointer is checked
against, at `framing` for messages in a byte stream, and at `packing`, which
only the store imports.
"""

from queueber.capnp.builder import DATA_BYTES_MAX
from queueber.capnp.layout import layout

__all__ = ["DATA_BYTES_MAX", "layout"]
