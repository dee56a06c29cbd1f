"""
A queue on pycapnp's own RPC server: in memory, nothing durable, no lease ever runs out.

What a Python programmer would write first with pycapnp; `run.py` measures it
next to Queueber.  A poll never waits here.  One argument: the port.
"""

import asyncio
import os
import sys
from collections import deque
from pathlib import Path

import capnp

capnp.remove_import_hook()

SITE_PACKAGES = Path(capnp.__file__).parents[1]
SCHEMA = capnp.load(
    str(Path(__file__).resolve().parents[2] / "schema" / "queueber.capnp"), imports=[str(SITE_PACKAGES)]
)


class Queue(SCHEMA.Queue.Server):
    """All items are in one line, due at once."""

    def __init__(self):
        self.ready = deque()
        self.leases = {}

    async def add_context(self, context):
        items = context.params.req.items
        ids = context.results.init("resp").init("ids", len(items))
        for index, item in enumerate(items):
            ids[index] = number = os.urandom(16)
            self.ready.append((number, item.contents))

    async def poll_context(self, context):
        count = min(context.params.req.numItems or 1, len(self.ready))
        response = context.results.init("resp")
        if not count:
            return
        taken = dict(self.ready.popleft() for _ in range(count))
        response.lease = lease = os.urandom(16)
        self.leases[lease] = taken
        items = response.init("items", count)
        for index, (number, contents) in enumerate(taken.items()):
            items[index].id = number
            items[index].contents = contents

    async def remove_context(self, context):
        request = context.params.req
        lease = request.lease
        held = self.leases.get(lease, {})
        context.results.init("resp").removed = held.pop(request.id, None) is not None
        if not held:
            self.leases.pop(lease, None)


async def serve(port):
    queue = Queue()

    async def connected(stream):
        await capnp.TwoPartyServer(stream, bootstrap=queue).on_disconnect()

    server = await capnp.AsyncIoStream.create_server(connected, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(capnp.run(serve(int(sys.argv[1]))))
