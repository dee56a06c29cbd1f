"""
A queue in pycapnp's own RPC server, on the connected socket whose number is the argument.

It only records the calls that it receives, because the caller is under test.
"""

import asyncio
import socket
import sys
from pathlib import Path

import capnp

capnp.remove_import_hook()

SITE_PACKAGES = Path(capnp.__file__).parents[1]
SCHEMA = Path(__file__).parents[2] / "schema" / "queueber.capnp"
queueber = capnp.load(str(SCHEMA), imports=[str(SITE_PACKAGES)])


class QueueHandlers:
    """Answers at once with something that shows what was asked."""

    def __init__(self, name):
        self._name = name

    async def add_context(self, context):
        items = context.params.req.items
        ids = context.results.init("resp").init("ids", len(items))
        for index, item in enumerate(items):
            ids[index] = f"{self._name} {item.contents.decode()} {item.visibilityTimeoutMs}".encode()

    async def remove_context(self, context):
        context.results.init("resp").removed = context.params.req.id == b"there"

    async def poll_context(self, context):
        request = context.params.req
        if request.leaseValidityMs == 0:
            raise ValueError("leaseValidity must be greater than 0")
        if request.numItems == 99:
            await asyncio.sleep(3600)
        response = context.results.init("resp")
        items = response.init("items", request.numItems)
        for index in range(request.numItems):
            items[index].contents = bytes([index]) * 3_000
            items[index].id = b"%16d" % index
            items[index].attempt = index + 1
            items[index].addedAtMs = index + 2
        response.lease = b"l" * 16
        response.leaseDeadlineMs = request.leaseValidityMs

    async def extend_context(self, context):
        context.results.init("resp").extended = context.params.req.lease == b"there"


class Queue(QueueHandlers, queueber.Queue.Server):
    """A named queue."""


class Broker(QueueHandlers, queueber.Broker.Server):
    """The default queue, and the way to all others."""

    async def queue_context(self, context):
        context.results.queue = Queue(context.params.name)


async def main(number):
    stream = await capnp.AsyncIoStream.create_connection(sock=socket.socket(fileno=number))
    await capnp.TwoPartyServer(stream, bootstrap=Broker("default")).on_disconnect()


asyncio.run(capnp.run(main(int(sys.argv[1]))))
