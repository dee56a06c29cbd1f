"""
Hostile sessions over real sockets, one for each kind of bad peer.

All of them are bounded in bytes and in time.
"""

import asyncio
import socket
import struct
from collections import deque
from contextlib import suppress

from attrs import define, field
from conversations import PLACEHOLDERS, placeholder, requests
from damage import damaged
from target_framing import pieces

from queueber.api import (
    ADD,
    POLL,
    QUEUE_INTERFACE_ID,
    AddRequest,
    NewItem,
    PollRequest,
    read_poll_response,
    write_add_request,
    write_poll_request,
)
from queueber.capnp.framing import Framer
from queueber.errors import RemoteProtocolError
from queueber.limits import Limits
from queueber.rpc import PromisedAnswer, Results, encoder
from queueber.rpc.decoder import decode
from queueber.rpc.messages import Return
from queueber.units import SpanMs

TIMEOUT_SECONDS = 60
LINGER_SECONDS = 0.3
"""The time for which a session that wants the server's last bytes waits for them."""

RESET = struct.pack("ii", 1, 0)
LIMITS = Limits()


@define
class Session:
    """One bad peer."""

    peer: socket.socket
    dice: object
    loop: asyncio.AbstractEventLoop
    spoils: deque
    """The leases and items in the replies to any session."""

    framer: Framer = field(factory=lambda: Framer(LIMITS))

    async def send(self, data):
        await asyncio.wait_for(self.loop.sock_sendall(self.peer, data), TIMEOUT_SECONDS)

    async def receive(self, seconds):
        """Return the bytes that come within *seconds*: empty at the end of the stream, None if nothing comes."""
        with suppress(TimeoutError):
            data = await asyncio.wait_for(self.loop.sock_recv(self.peer, 1 << 16), seconds)
            self.learn(data)
            return data
        return None

    def learn(self, data):
        """Remember ids and leases."""
        for frame in self.framer.feed(data):
            said = decode(frame)
            if isinstance(said, Return) and isinstance(said.outcome, Results):
                with suppress(RemoteProtocolError):
                    found = read_poll_response(said.outcome)
                    self.spoils.extend((found.lease, item.id) for item in found.items if len(found.lease) == 16)

    def filled(self, data):
        """Return *data* with known ids in place of the placeholders."""
        for number, (lease, item) in enumerate(list(self.spoils)[:PLACEHOLDERS]):
            data = data.replace(placeholder("lease", number), lease).replace(placeholder("item", number), item)
        return data

    async def leave(self):
        """End the connection, in one of the possible ways."""
        roll = self.dice.random()
        if roll < 0.35:
            self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        elif roll < 0.7:
            with suppress(OSError):
                self.peer.shutdown(socket.SHUT_WR)
            until = self.loop.time() + LINGER_SECONDS
            while self.loop.time() < until and await self.receive(LINGER_SECONDS):
                pass
        self.peer.close()

    # What it says before

    async def damaged(self):
        """Send a conversation with faults, in pieces, and read some of the replies."""
        frames, _ = damaged(requests(self.dice), self.dice, requests(self.dice))
        for piece in pieces(self.filled(b"".join(frames)), self.dice):
            await self.send(piece)
            if self.dice.random() < 0.1:
                await self.receive(0.01)
        await self.receive(0.05)

    async def cut_off(self):
        """Send a valid conversation that ends in the middle."""
        stream = self.filled(b"".join(requests(self.dice)))
        await self.send(stream[: self.dice.randrange(len(stream))])

    async def slow(self):
        """Send byte by byte."""
        stream = b"".join(requests(self.dice))
        for at in range(min(len(stream), self.dice.randrange(10, 120))):
            await self.send(stream[at : at + 1])
            await asyncio.sleep(self.dice.random() * 0.004)

    async def silent(self):
        """Send nothing."""
        await asyncio.sleep(self.dice.random() * 0.1)

    async def noise(self):
        """Speak another protocol, or none."""
        count = self.dice.randrange(1, 4_000)
        said = [
            self.dice.randbytes(count),
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + self.dice.randbytes(500),
            b"\0" * count,
            b"\xff" * count,
        ]
        await self.send(self.dice.choice(said))
        await self.receive(0.05)

    async def promise(self):
        """Announce a message and do not send it."""
        words = self.dice.choice([1 << 20, (1 << 21) - 1, (1 << 21) + 1, (1 << 32) - 1])
        await self.send(struct.pack("<II", self.dice.choice([0, 0, 1, 511, 70_000]), words))
        await self.send(bytes(self.dice.randrange(1 << 16)))

    def call(self, question, method, content):
        return encoder.pipelined_call(question, PromisedAnswer(0), QUEUE_INTERFACE_ID, method, content)

    def poll(self, question, *, no_wait):
        request = PollRequest(SpanMs(200), self.dice.choice([1, 5, 1_000]), SpanMs(2_000), no_wait=no_wait)
        return self.call(question, POLL, write_poll_request(request))

    async def flood(self):
        """Make more calls than may be unanswered, and read nothing."""
        count = self.dice.randrange(100, 1_500)
        if self.dice.random() < 0.5:
            calls = [self.poll(number, no_wait=self.dice.random() < 0.5) for number in range(1, count)]
        else:
            one = write_add_request(AddRequest([NewItem(b"flood", SpanMs(self.dice.choice([0, 500])))]))
            calls = [self.call(number, ADD, one) for number in range(1, count // 3)]
        await self.send(encoder.bootstrap(0) + b"".join(calls))
        await asyncio.sleep(self.dice.random() * 0.05)

    async def regrets(self):
        """Make polls that wait, finish each at once or soon, and use the same numbers again."""
        numbers = range(1, self.dice.randrange(2, 300))
        await self.send(encoder.bootstrap(0))
        for _ in range(2):
            calls = [self.poll(number, no_wait=False) for number in numbers]
            ends = [encoder.finish(number, release_result_caps=self.dice.random() < 0.5) for number in numbers]
            self.dice.shuffle(ends)
            await self.send(b"".join([*calls, *ends]))
            await self.receive(0.02)

    async def deaf(self):
        """Request large items again and again, and never read them."""
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        large = write_add_request(AddRequest([NewItem(bytes(30_000), SpanMs(0))] * 10))
        polls = [self.poll(number, no_wait=True) for number in range(2, 20)]
        await self.send(encoder.bootstrap(0) + self.call(1, ADD, large) + b"".join(polls))
        await asyncio.sleep(self.dice.random() * 0.1)


KINDS = {
    Session.damaged: 60,
    Session.cut_off: 10,
    Session.slow: 4,
    Session.silent: 4,
    Session.noise: 6,
    Session.promise: 6,
    Session.flood: 4,
    Session.regrets: 3,
    Session.deaf: 3,
}
"""The share of each kind, in percent."""


async def session(port, dice, spoils):
    """Run one session with the server on *port*; return the name of its kind."""
    (kind,) = dice.choices(list(KINDS), KINDS.values())
    loop = asyncio.get_running_loop()
    peer = socket.socket()
    peer.setblocking(False)
    try:
        await asyncio.wait_for(loop.sock_connect(peer, ("127.0.0.1", port)), TIMEOUT_SECONDS)
        one = Session(peer, dice, loop, spoils)
        # The server may end it at any moment; that is its right.
        with suppress(ConnectionError, RemoteProtocolError):
            await kind(one)
        with suppress(ConnectionError, RemoteProtocolError):
            await one.leave()
    finally:
        peer.close()
    return kind.__name__
