"""Attacks with bytes: streams that are late, cut off, malformed, or against the protocol's rules."""

import contextlib
import select
import time

from queueber import api
from queueber.rpc import encoder
from tests.hostile import cases
from tests.hostile.attack import FIRST, REPLIES, SHORT_TIMEOUTS, SLACK, STALLED, attack, turns
from tests.hostile.pieces import call
from tests.support.peer import Gone, Peer, adding, polling

AFTER = 2_000
BLOCKED_SECONDS = 10.0
"""A server that takes nothing for this time has stopped reading; most have ended the connection by then."""


def all_gone(peers, seconds):
    """Assert that the server ends all their connections; return the longest time it took."""
    began = time.monotonic()
    for peer in peers:
        assert peer.gone_within(began + seconds + SLACK - time.monotonic()) is not None, "still connected"
    return time.monotonic() - began


@attack("W1", *SHORT_TIMEOUTS)
def connecting_and_sending_nothing(arena):
    peers = [arena.connect() for _ in range(199)]
    began = time.monotonic()
    peers.append(arena.connect())
    all_gone(peers, FIRST)
    took = time.monotonic() - began
    assert took > FIRST / 2
    return f"200 connections closed within {took:.1f} s"


@attack("W2", *SHORT_TIMEOUTS)
def a_first_message_byte_by_byte(arena):
    peers, message = [arena.connect() for _ in range(50)], encoder.bootstrap(0)
    began = time.monotonic()
    for at in range(len(message) - 1):
        if time.monotonic() - began > FIRST / 2:
            break
        for peer in peers:
            # On a busy machine its time may be over.
            with contextlib.suppress(Gone):
                peer.send(message[at : at + 1])
        time.sleep(0.02)
    took = all_gone(peers, FIRST)
    return f"50 connections closed {time.monotonic() - began:.1f} s after they began" if took else ""


@attack("W2", *SHORT_TIMEOUTS)
def half_a_message_and_silence(arena):
    peers = []
    for _ in range(50):
        peers.append(arena.connect())
        peers[-1].bootstrap()
        began = time.monotonic()
        peers[-1].send(call(cases.ONE)[:-1])
    all_gone(peers, STALLED)
    took = time.monotonic() - began
    assert took > STALLED / 2
    return f"50 connections closed within {took:.1f} s"


@attack("W8")
def half_an_add_and_then_nothing(arena):
    """Every beginning of an add, ended by FIN or by RST, is never applied."""
    keeper = arena.connect()
    queue = keeper.queue("halves")
    count = 0
    for number in turns(arena):
        peer = Peer(arena.port)
        target = peer.queue("halves")
        peer.ask(api.ADD, adding(b"half" * 40), target)
        said = peer.connection.data_to_send()
        whole = encoder_size(said)
        peer.send(said[: len(said) - 1 - number * 8 % (whole - 8)])
        (peer.reset if number % 2 else peer.close)()
        count += 1
    assert not keeper.poll(10, target=queue).items
    return f"{count} half adds, none applied"


@attack("W8 W27")
def large_messages_that_come_to_nothing(arena):
    """Megabytes on each of many connections, cut short or ignored, leave nothing."""
    half, count = b"\0\0\0\0" + (1 << 20).to_bytes(4, "little") + bytes(8 << 20 >> 1), 0
    keeper = arena.connect()
    keeper.bootstrap()
    arena.forget_peak()
    before = arena.server.memory()
    for number in turns(arena):
        peer = Peer(arena.port)
        peer.send(cases.LARGE if number % 2 else half)
        (peer.reset if number % 3 else peer.close)()
        count += 1
        if count == 100:
            break
        # One at a time.  How much many may hold at once is another limit's.
        keeper.bootstrap()
    while count < 60:
        peer = Peer(arena.port)
        peer.send(half)
        peer.close()
        keeper.bootstrap()
        count += 1
    grown = arena.server.memory("VmHWM") - before
    assert grown < 150
    return f"{count} messages of 4 to 10 MB; {grown:.0f} MiB more memory"


def encoder_size(said):
    """Return the length of the last message in *said*."""
    at = 0
    while True:
        size = 8 + 8 * int.from_bytes(said[at + 4 : at + 8], "little")
        if at + size >= len(said):
            return size
        at += size


@attack("W3-W7 W9-W11 W13-W27 R1-R13 R17 R21 R22")
def every_message_of_the_catalogue(arena):
    count = 0
    for _ in turns(arena):
        for case in cases.CASES:
            assert ending(arena, case) == (case.outcome not in {cases.ABORT, cases.QUIET}), str(case)
            count += 1
    return f"{count} messages, each ended as promised"


def ending(arena, case):
    """Return whether the connection goes on and a valid call is answered after *case*."""
    peer = Peer(arena.port)
    try:
        peer.send(encoder.bootstrap(0) + case.stream)
        peer.send(call(cases.ONE, question=AFTER))
        heard = b""
        mark = framed_return_of(AFTER)
        while mark not in heard:
            heard += peer.receive()
    except Gone:
        return False
    else:
        return True
    finally:
        peer.close()


def framed_return_of(question):
    """Return the bytes that a plain Return for *question* contains and no other message of ours."""
    return b"".join(encoder.results([question], [b""]))[8:40]


@attack("O14 W9")
def bad_frames_at_full_speed(arena):
    """From fifty addresses, a hundred and more a second."""
    before, count = arena.lines(), 0
    began = time.monotonic()
    for number in turns(arena):
        peer = Peer(arena.port, source=f"127.0.1.{1 + number % 50}")
        peer.send(b"\xff" * 8)
        peer.reset() if number % 3 else peer.close()
        count += 1
    seconds = time.monotonic() - began
    time.sleep(0.2)
    lines = arena.lines() - before
    # One line about the bad frame and one about the reset, for each address and second.
    assert lines <= 2 * 50 * (seconds + 2)
    return f"{count / seconds:,.0f} a second, {lines / seconds:,.0f} lines of log a second"


@attack("R14 R15")
def never_sending_finish(arena):
    peer, sent = arena.connect(), 0
    try:
        for first in range(0, 200_000, 1_000):
            peer.send(b"".join([encoder.bootstrap(first + number) for number in range(1_000)]))
            sent += 1_000
            while select.select([peer.socket], [], [], 0)[0]:
                peer.receive()
        peer.gone_within(SLACK)
    except Gone:
        pass
    assert 20_000 <= sent < 200_000
    # Of which the server read 20,000; the rest was in the sockets' buffers.
    return "closed at the limit"


@attack("R16 O4", *SHORT_TIMEOUTS)
def calls_whose_replies_are_not_read(arena):
    """The server stops reading, and ends the connection when none of its replies are taken."""
    peer = arena.connect(receive_bytes=4096)
    peer.bootstrap()
    peer.ask(api.REMOVE, api.write_remove_request(api.RemoveRequest(bytes(16), bytes(16))), None)
    peer.connection.data_to_send()
    chunk = b"".join(
        [
            encoder.call(number, 0, api.QUEUE_INTERFACE_ID, api.POLL, WRONG_POLL) + WRONG_POLL
            for number in range(10_000, 11_000)
        ]
    )
    finishes = b"".join([encoder.finish(number, release_result_caps=True) for number in range(10_000, 11_000)])
    arena.forget_peak()
    before, began = arena.server.memory(), time.monotonic()
    sent = blast(peer, chunk + finishes, 64 << 20)
    peer_ended(peer, REPLIES)
    took = time.monotonic() - began
    grown = arena.server.memory("VmHWM") - before
    assert grown < 128
    return f"not read any more after {sent >> 20} MiB, closed {took:.1f} s after it began; {grown:.0f} MiB more memory"


WRONG_POLL = polling(lease=0)


def blast(peer, chunk, most):
    """Send *chunk* over and over without reading, until the server stops reading; return how much it took."""
    sent, at = 0, 0
    peer.socket.setblocking(False)
    while sent < most:
        if not select.select([], [peer.socket], [], BLOCKED_SECONDS)[1]:
            return sent
        try:
            done = peer.socket.send(chunk[at:])
        except BlockingIOError:
            continue
        except ConnectionError:
            return sent
        sent, at = sent + done, (at + done) % len(chunk)
    raise AssertionError(f"the server took {sent >> 20} MiB from a peer that takes no replies")


def peer_ended(peer, seconds):
    """Return the seconds until the server has ended a connection that is not read."""
    began = time.monotonic()
    poller = select.poll()
    poller.register(peer.socket, 0)
    assert poller.poll((seconds + SLACK) * 1000), "still connected"
    return time.monotonic() - began


@attack("O4", *SHORT_TIMEOUTS)
def polls_whose_replies_are_not_read(arena):
    """8 MiB of items wait for a peer that takes none; in the end others get them."""
    keeper = arena.connect()
    queue = keeper.queue("unread")
    for _ in range(30):
        keeper.add(*[bytes(65_536)] * 10, target=queue)
    reader = arena.connect(receive_bytes=4096)
    target = reader.queue("unread")
    for _ in range(1_000):
        reader.ask(api.POLL, polling(1, lease=1_000, wait=None), target)
    arena.forget_peak()
    before = arena.server.memory()
    reader.flush()
    took = peer_ended(reader, REPLIES)
    grown = arena.server.memory("VmHWM") - before
    items = 0
    while items < 300:
        found = keeper.poll(50, target=queue, wait=10_000)
        assert found.items, f"only {items} of 300 items came back"
        for item in found.items:
            assert keeper.remove(item.id, found.lease, target=queue)
        items += len(found.items)
    assert grown < 128
    return f"closed after {took:.1f} s, all items came back; {grown:.0f} MiB more memory"


@attack("R18")
def half_closing_with_calls_under_way(arena):
    keeper, count = arena.connect(), 0
    keeper.bootstrap()
    for _ in turns(arena):
        peer = Peer(arena.port)
        question = peer.ask(api.ADD, adding(b"half-closed"))
        peer.flush()
        peer.socket.shutdown(1)
        try:
            peer.outcome(question)
        except Gone:
            count += 1
        peer.close()
    keeper.bootstrap()
    return f"{count} closed before their reply, the rest after it"
