"""Lease an item shortly before a crash, and get it at its second attempt afterwards."""

import asyncio
import sys

import capnp
from foreign_peer import add, connect, poll


async def main(step, port):
    _client, broker = await connect(port)
    if step == "lease":
        await add(broker, b"once more")
        resp = (await poll(broker, lease_ms=1500)).resp
        assert resp.items[0].attempt == 1
    else:
        resp = (await poll(broker, wait_ms=60_000)).resp
        assert [(bytes(item.contents), item.attempt) for item in resp.items] == [(b"once more", 2)]


if __name__ == "__main__":
    asyncio.run(capnp.run(main(sys.argv[1], int(sys.argv[2]))))
