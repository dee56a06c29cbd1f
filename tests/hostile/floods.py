"""Floods: cheap calls on many connections, TLS handshakes, limited places, and memory that all peers share."""

import contextlib
import re
import select
import socket
import ssl
import time

from queueber import api
from queueber.errors import Kind
from queueber.rpc import encoder
from tests.hostile.arena import limits
from tests.hostile.attack import OPTIONS, attack, turns
from tests.hostile.pieces import call, stream, struct_pointer, words
from tests.support.peer import TIMEOUT_SECONDS, Gone, Peer, adding, polling

BURST = 8_192
"""Bytes that one peer sends at once: less than a long read."""

NO_LEASE = api.write_extend_request(api.ExtendRequest(bytes(16), 5_000))


def finished(number, said):
    """Return *said* with a Finish: a call whose reply the peer does not wait for."""
    return said + encoder.finish(number, release_result_caps=True)


def bootstrapped(arena, count):
    """Return *count* connections that have received the reply to their bootstrap."""
    peers = []
    for _ in range(count):
        peer = arena.connect()
        peer.send(encoder.bootstrap(0))
        peers.append(peer)
    for peer in peers:
        peer.receive()
        peer.socket.setblocking(False)
    return peers


def drained(peers, seconds):
    """Read until the server sends nothing for *seconds*; return the number of bytes."""
    with contextlib.closing(select.epoll()) as epoll:
        by_number = {peer.socket.fileno(): peer.socket for peer in peers}
        for number in by_number:
            epoll.register(number, select.EPOLLIN)
        total = 0
        while ready := epoll.poll(seconds if total else TIMEOUT_SECONDS):
            for number, _ in ready:
                with contextlib.suppress(BlockingIOError):
                    heard = by_number[number].recv(1 << 17)
                    assert heard, "a peer that did nothing wrong was let go"
                    total += len(heard)
        return total


@attack("R15", *limits(first_message_ms=10_000))
def thousands_of_peers_with_small_bursts(arena):
    """Bursts shorter than a long read, of the calls that cost most per byte."""
    peers = bootstrapped(arena, 4_000 if arena.full else 300)
    each = BURST // len(finished(1, encoder.bootstrap(1)))
    number, bursts = 1, 0
    for _ in turns(arena):
        burst = b"".join([finished(at, encoder.bootstrap(at)) for at in range(number, number + each)])
        number, bursts = number + each, bursts + 1
        for peer in peers:
            assert peer.socket.send(burst) == len(burst)
        assert drained(peers, 0.5)
    return f"{len(peers):,} peers, {bursts} times {each} calls of each at once"


def flood(arena, said):
    """Send the same calls over fifty connections as fast as the server reads; return the MiB that it read."""
    peers = bootstrapped(arena, 50)
    blob = b"".join([finished(number, said(number)) for number in range(10, 2_000)])
    at, sent = dict.fromkeys(peers, 0), 0
    for _ in turns(arena):
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            for peer in peers:
                with contextlib.suppress(BlockingIOError):
                    done = peer.socket.send(memoryview(blob)[at[peer] : at[peer] + 65_536])
                    at[peer] = (at[peer] + done) % len(blob)
                    sent += done
                with contextlib.suppress(BlockingIOError):
                    while peer.socket.recv(1 << 17):
                        pass
    return f"{sent / (1 << 20):.0f} MiB taken"


@attack("O5")
def fifty_floods_of_cheap_calls(arena):
    return flood(arena, lambda number: call(NO_LEASE, question=number, method=api.EXTEND))


@attack("O5")
def fifty_floods_of_adds(arena):
    content = adding(b"flood")
    return flood(arena, lambda number: call(content, question=number))


@attack("R4")
def fifty_floods_of_unknown_messages(arena):
    """Each message is sent back, and is the shortest possible."""
    unknown = stream(words(struct_pointer(0, 1, 0), 999))
    return flood(arena, lambda _: unknown)


# Limits shared by all peers


@attack("W2 O4", *limits(buffered_bytes=64 << 20, stalled_message_ms=60_000, open_answers=20_000))
def half_messages_and_a_worker_with_many_open_answers(arena):
    """The peers that hold back half messages are cut off, and not the worker with the oldest connection."""
    worker = arena.connect()
    for _ in range(10):
        questions = [worker.ask(api.ADD, adding()) for _ in range(500)]
        worker.flush()
        for question in questions:
            worker.outcome(question)
    time.sleep(max(1.0, arena.seconds))
    half, cut = b"\0\0\0\0" + (1 << 20).to_bytes(4, "little") + bytes(7 << 20), set()
    hoarders = [arena.connect() for _ in range(20)]
    for peer in hoarders:
        with contextlib.suppress(Gone):
            peer.bootstrap()
            peer.send(half)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while len(cut) < 20 - (64 << 20) // (7 << 20):
        assert time.monotonic() < deadline, f"{len(cut)} of 20 were cut off"
        cut |= {peer for peer in hoarders if peer not in cut and peer.gone_within(0.05) is not None}
    question = worker.ask(api.ADD, adding())
    worker.flush()
    worker.outcome(question)
    return f"{len(cut)} of 20 were cut off, the worker with 5,000 open answers was not"


@attack("O2", *limits(connections=60, first_message_ms=60_000))
def idle_connections_that_take_all_places(arena):
    served = 0
    for _ in turns(arena):
        while True:
            try:
                arena.connect().bootstrap()
            except Gone:
                break
            if len(arena.peers) > 100:
                break
        time.sleep(1.1)
        newcomer = Peer(arena.port)
        newcomer.bootstrap()
        newcomer.close()
        served += 1
        arena.close()
        time.sleep(0.05)
    return f"{served} newcomers served: the connection idle longest makes room"


@attack("O6", *limits(waiting_polls=2_000), *OPTIONS)
def polls_that_take_all_places(arena):
    refused = 0
    for _ in range(10):
        peer = arena.connect()
        target = peer.queue("places")
        questions = [peer.ask(api.POLL, polling(1, wait=None), target) for _ in range(1_000)]
        question = peer.ask(api.ADD, adding())
        peer.flush()
        peer.outcome(question)
        outcomes = [peer.outcomes[each] for each in questions if each in peer.outcomes]
        assert all(each.kind == Kind.OVERLOADED for each in outcomes)
        refused += len(outcomes)
    assert not arena.connect().poll(1, wait=100).items
    return f"10,000 asked for 2,000 places, {refused:,} overloaded, and who came then found one"


# TLS handshakes and PROXY headers


def greeting():
    """Return a TLS client's first message."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = False
    client = context.wrap_bio(incoming, outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@attack("W1 W9", *limits(first_message_ms=5_000), tls=True)
def unfinished_tls_handshakes(arena):
    """Each costs a signature, and memory for as long as it stays."""
    hello, before, kept, count = greeting(), arena.server.memory(), [], 0
    arena.forget_peak()
    for _ in turns(arena):
        for _ in range(100):
            one = socket.create_connection(("127.0.0.1", arena.ports[1]))
            with contextlib.suppress(ConnectionError):
                one.sendall(hello)
            kept.append(one)
            count += 1
        while len(kept) > 2_000:
            kept.pop(0).close()
    for one in kept:
        one.close()
    grown = arena.server.memory("VmHWM") - before
    # Of a thousand handshakes, and what allocators keep.
    assert grown < 200
    return f"{count:,} greetings, up to 2,000 at a time; {grown:.0f} MiB more memory"


HEADERS = [
    b"PROXY \xff\xff\xff\r\n",
    b"PROXY TCP4 \xa3 5.6.7.8 1 2\r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 a b\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x04" + bytes(4),
    b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\x02\xff\xff",
    b"GET / HTTP/1.0\r\n\r\n",
]


@attack("O14 W9", "--listen=127.0.0.1:0", "--listen=haproxy:tcp:0:interface=127.0.0.1", *OPTIONS)
def invalid_proxy_headers(arena):
    before, count, began = arena.lines(), 0, time.monotonic()
    for number in turns(arena):
        with socket.create_connection(("127.0.0.1", arena.ports[1])) as one, contextlib.suppress(ConnectionError):
            one.sendall(HEADERS[number % len(HEADERS)])
            assert not one.recv(1_000)
        count += 1
    seconds = time.monotonic() - began
    said = arena.server.lines[before:]
    assert len(said) <= 3 * (seconds + 2), said[-5:]
    assert not [line for line in said if re.search("Traceback|Unhandled", line)]
    return f"{count / seconds:,.0f} a second, {len(said) / seconds:,.0f} lines of log a second"
