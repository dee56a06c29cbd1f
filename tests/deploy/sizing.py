"""
Measures what `docs/operating.md` says about sizing, each figure on a real server of its own.

    python tests/deploy/sizing.py [NAME...]

Memory is `VmRSS`, disk space is what the data directory takes after a clean stop, and what is written is `write_bytes`
of `/proc/PID/io`, which the kernel counts when it sends pages to the disk.  Contents are random, so that nothing can be
compressed.  Takes about two minutes and a GiB next to the current directory.
"""

import os
import sys
import tempfile
from pathlib import Path

from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater, react
from twisted.internet.threads import deferToThread

from queueber.client import Tls, connect
from tests.process.certificates import Authority
from tests.support.server_process import Server

KIB, MIB = 1 << 10, 1 << 20
A_CALL = 1_000
SETTLE_SECONDS = 2.0


class Measured:
    """A server, looked at from outside."""

    def __init__(self, reactor, server):
        self._reactor, self._server = reactor, server
        self._clients = []
        self.authority = server.data_dir.parent / "ca.pem"

    def connect(self, authority=None):
        """A client, with TLS if there is an authority to trust."""
        tls = Tls(ca=authority) if authority else None
        self._clients.append(connect(self._reactor, f"127.0.0.1:{self._server.port}", tls=tls))
        return self._clients[-1]

    async def memory(self):
        """Bytes, once nothing is under way any more."""
        await deferLater(self._reactor, SETTLE_SECONDS)
        return 1024 * int(self._proc("status")["VmRSS"].split()[0])

    def written(self):
        return int(self._proc("io")["write_bytes"])

    def files(self):
        return len([*Path(f"/proc/{self._server.process.pid}/fd").iterdir()])

    async def stop(self):
        """Bytes that the data directory takes."""
        await gatherResults([client.close() for client in self._clients])
        assert await deferToThread(self._server.stop) in (0, -15)
        return sum(path.stat().st_blocks * 512 for path in self._server.data_dir.rglob("*"))

    def _proc(self, name):
        lines = Path(f"/proc/{self._server.process.pid}/{name}").read_text().splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


async def add(queue, number, size):
    for _ in range(number // A_CALL):
        await queue.add(*(os.urandom(size) for _ in range(A_CALL)))


async def base(server):
    server.connect()
    print(f"after a start: {await server.memory() / MIB:.0f} MiB, {server.files()} files")
    await server.stop()


async def backlog(server):
    queue, number, size = server.connect().default, 100_000, KIB
    before = await server.memory()
    for times in (1, 2, 4):
        await add(queue, number * (times - times // 2), size)
        memory = await server.memory()
        print(f"{number * times:,} items of 1 KiB: {(memory - before) / MIB:.0f} MiB more, {server.files()} files")
    written = server.written()
    disk = await server.stop()
    contents = 4 * number * size
    print(
        f"  {disk / 4 / number:,.0f} bytes an item on disk; {written / contents:.2f} bytes written for one of contents"
    )


async def heads(server):
    client, number, size = server.connect(), 20_000, KIB
    before = await server.memory()
    for name in range(8):
        await add(client.queue(f"q{name}"), number, size)
    print(f"8 queues with {number:,} items of 1 KiB: {(await server.memory() - before) / MIB:.0f} MiB more")
    await server.stop()


async def leases(server):
    for name, number, size in (("small", 200_000, 64), ("large", 20_000, 8 * KIB)):
        queue = server.connect().queue(name)
        await add(queue, number, size)
        before = await server.memory()
        left = number
        while left:
            left -= len((await queue.poll(A_CALL, lease_ms=600_000)).items)
        print(f"{number:,} leased items of {size}: {(await server.memory() - before) / number:,.0f} bytes each")
    await server.stop()


async def waiting(server):
    clients = [server.connect() for _ in range(20)]
    before = await server.memory()
    for client in clients:
        for _ in range(A_CALL):
            client.default.poll().addErrback(lambda _: None)
    print(f"{20 * A_CALL:,} polls that wait: {(await server.memory() - before) / 20 / A_CALL:,.0f} bytes each")
    await server.stop()


async def connections(server):
    number = 4_000
    before, files = await server.memory(), server.files()
    clients = [server.connect() for _ in range(number)]
    await gatherResults([client.default.poll(wait_ms=0) for client in clients])
    memory = (await server.memory() - before) / number
    print(f"{number:,} connections: {memory:,.0f} bytes and {(server.files() - files) / number:.2f} files each")
    await server.stop()


async def secured(server):
    number, before = 1_000, await server.memory()
    clients = [server.connect(server.authority) for _ in range(number)]
    await gatherResults([client.default.poll(wait_ms=0) for client in clients])
    print(f"{number:,} connections with TLS: {(await server.memory() - before) / number:,.0f} bytes each")
    await server.stop()


async def queues(server):
    client, number = server.connect(), 50_000
    before = await server.memory()
    for begin in range(0, number, 500):
        batches = await gatherResults([client.queue(f"queue {n}").add(b"") for n in range(begin, begin + 500)])
        assert len(batches) == 500
    print(f"{number:,} queues with an item: {(await server.memory() - before) / number:,.0f} bytes each")
    await server.stop()


async def cycle(server):
    for number, at_once, size in ((200_000, A_CALL, 64), (2_000, 1, 64)):
        queue, before = server.connect().default, server.written()
        for _ in range(number // at_once):
            await queue.add(*(os.urandom(size) for _ in range(at_once)))
            left = at_once
            while left:
                batch = await queue.poll(left)
                left -= sum(await gatherResults([queue.remove(item.id, batch.lease) for item in batch.items]))
        written = (server.written() - before) / number
        print(f"added, polled and removed {at_once:,} at a time: {written:,.0f} bytes written for an item of {size}")
    print(f"  {await server.stop() / MIB:.1f} MiB on disk afterwards, with nothing in it")


MEASURES = {
    each.__name__: each for each in (base, backlog, heads, leases, waiting, connections, secured, queues, cycle)
}


async def main(reactor, *names):
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".sizing-") as scratch:
        certificate, key = Authority(Path(scratch)).sign("server", alternative="IP:127.0.0.1")
        tls = (f"--listen=unix:{scratch}/s", "--listen-tls=127.0.0.1:0")
        tls += (f"--tls-certificate={certificate}", f"--tls-key={key}")
        for name in names or MEASURES:
            server = Server(Path(scratch) / name, "--workers=2", *(tls if name == "secured" else ()))
            try:
                await MEASURES[name](Measured(reactor, server))
            finally:
                if server.process.poll() is None:
                    server.kill()


if __name__ == "__main__":
    react(main, sys.argv[1:])
