"""Attacks by sheer number: calls, bytes, polls and connections."""

import select
import socket
import time
from itertools import count

from queueber import api, rpc
from queueber.errors import Kind
from tests.hostile.arena import limits
from tests.hostile.attack import OPTIONS, SLACK, attack, turns
from tests.support.peer import TIMEOUT_SECONDS, Gone, Peer, adding, polling


@attack("O5", *limits(request_bytes=64 << 10), *OPTIONS)
def adds_at_line_rate_above_the_limit_in_flight(arena):
    """Send adds at line rate while the limit is below what the server's turns allow."""
    ends, grown = produced(arena)
    assert ends["overloaded"], "what is in flight was not bounded"
    return f"{ends['ok']:,} taken, {ends['overloaded']:,} overloaded; {grown:.0f} MiB more memory"


@attack("O5")
def adds_at_line_rate(arena):
    ends, grown = produced(arena)
    return f"{ends['ok']:,} taken, {ends['overloaded']:,} overloaded; {grown:.0f} MiB more memory"


def produced(arena):
    """Four producers never wait: their calls in flight and the memory are bounded."""
    content = adding(bytes(16_384))
    ends = {"ok": 0, "overloaded": 0}
    peers = [arena.connect() for _ in range(4)]
    targets = [peer.queue("flood") for peer in peers]
    arena.forget_peak()
    before = arena.server.memory()
    for _ in turns(arena):
        for peer, target in zip(peers, targets, strict=True):
            questions = [peer.ask(api.ADD, content, target) for _ in range(100)]
            pump(peer)
            for question in questions:
                peer.outcomes.setdefault(question, None)
            settle(peer, ends)
    for peer in peers:
        while any(outcome is None for outcome in peer.outcomes.values()):
            peer.listen()
        settle(peer, ends)
    grown = arena.server.memory("VmHWM") - before
    assert ends["ok"]
    assert grown < 512
    return ends, grown


def pump(peer):
    """Send everything while receiving, so that neither side waits for the other."""
    data = memoryview(peer.connection.data_to_send())
    while data:
        readable, writable, _ = select.select([peer.socket], [peer.socket], [], TIMEOUT_SECONDS)
        assert readable or writable, "the server hangs"
        if readable:
            peer.listen()
        if writable:
            data = data[peer.socket.send(data[:65_536]) :]


def settle(peer, ends):
    """Count how calls ended, and forget them."""
    for question, outcome in list(peer.outcomes.items()):
        if outcome is not None:
            del peer.outcomes[question]
            peer.connection.finish(question)
            if isinstance(outcome, rpc.RemoteException):
                assert outcome.kind == Kind.OVERLOADED, outcome.reason
                ends["overloaded"] += 1
            else:
                ends["ok"] += 1


CROWD = 5
EACH = 1_000


def crowd(arena, queue, wait):
    """Make thousands of polls that wait; return when those of each peer were accepted."""
    peers = [arena.connect() for _ in range(CROWD)]
    for peer in peers:
        target = peer.queue(queue)
        for _ in range(EACH):
            peer.ask(api.POLL, polling(1, wait=wait), target)
        peer.flush()
    for peer in peers:
        # Answered after the polls of this connection.
        question = peer.ask(api.ADD, adding(), None)
        peer.flush()
        peer.outcome(question)
    return peers


@attack("O6", *limits(first_message_ms=10_000))
def five_thousand_waiting_polls_and_one_item(arena):
    peers = crowd(arena, "crowd", None)
    keeper = arena.connect()
    queue = keeper.queue("crowd")
    costs = []
    for _ in turns(arena):
        before = arena.cpu_seconds()
        keeper.add(b"the one", target=queue)
        ready = select.select([peer.socket for peer in peers], [], [], TIMEOUT_SECONDS)[0]
        assert len(ready) == 1, "one item, and not one delivery"
        (peer,) = [peer for peer in peers if peer.socket in ready]
        peer.listen()
        costs.append(arena.cpu_seconds() - before)
        ((question, outcome),) = peer.outcomes.items()
        found = api.read_poll_response(outcome)
        assert [bytes(item.contents) for item in found.items] == [b"the one"]
        del peer.outcomes[question]
        assert keeper.remove(found.items[0].id, found.lease, target=queue)
        if len(costs) == EACH:
            break
    return f"{len(costs)} items, one delivery each; {sum(costs) / len(costs) * 1000:.1f} ms of CPU an item"


@attack("O7", *limits(first_message_ms=10_000))
def five_thousand_polls_time_out_at_once(arena):
    rounds, slowest = 0, 0.0
    for _ in turns(arena):
        peers = crowd(arena, "empty", 1_000)
        began = time.monotonic()
        for peer in peers:
            while len(peer.outcomes) < EACH:
                peer.listen()
            slowest = max(slowest, time.monotonic() - began)
            assert not any(api.read_poll_response(each).items for each in peer.outcomes.values())
        arena.close()
        rounds += 1
    assert slowest < 1 + SLACK
    return f"{rounds * CROWD * EACH:,} empty answers, the last {slowest:.1f} s after the last poll (1 s is the wait)"


@attack("R14 O6")
def more_calls_than_the_limit(arena):
    peer = arena.connect()
    target = peer.queue("nothing")
    for _ in range(3_000):
        peer.ask(api.POLL, polling(1, wait=None), target)
    peer.flush()
    while len(peer.outcomes) < 3_000 - 1_024:
        peer.listen()
    assert all(each.kind == Kind.OVERLOADED for each in peer.outcomes.values())
    for question in peer.outcomes:
        peer.connection.finish(question)
    return f"1,024 wait, {len(peer.outcomes):,} are overloaded"


@attack("O2")
def many_idle_connections(arena):
    number = 5_000 if arena.full else 1_000
    before = arena.server.memory()
    peers = []
    for _ in range(number):
        peers.append(arena.connect())
        peers[-1].ask(api.ADD, adding())
        peers[-1].flush()
    for peer in peers:
        peer.listen()
    each = (arena.server.memory() - before) * 1024 / number
    time.sleep(arena.seconds)
    readable = select.select([peer.socket for peer in peers[:500]], [], [], 0)[0]
    assert all(each.recv(1, socket.MSG_PEEK) for each in readable), "an idle connection was ended"
    assert each < 64
    return f"{number:,} connections, {each:.1f} KiB each"


@attack("O2", *limits(connections=60), *OPTIONS)
def more_connections_than_the_limit(arena):
    refused, began = 0, time.monotonic()
    for number in count():
        # However slow the machine: not before there were more than may be.
        if refused and time.monotonic() - began > arena.seconds:
            break
        if number % 100 == 0:
            arena.close()
            time.sleep(0.2)
        peer = arena.connect()
        try:
            peer.bootstrap()
        except Gone:
            refused += 1
    arena.close()
    return f"{refused} closed at once, 60 served"


@attack("O2 W1", *limits(connections=60, first_message_ms=60_000))
def silent_connections_that_take_all_places(arena):
    for _ in turns(arena):
        for _ in range(70):
            arena.connect()
        with_something_to_say = Peer(arena.port)
        with_something_to_say.bootstrap()
        with_something_to_say.close()
        arena.close()
        time.sleep(0.05)
    return "a newcomer that sends gets in: the oldest silent connection makes room"


@attack("O3", *limits(connections_per_peer=20), *OPTIONS)
def many_connections_from_one_address(arena):
    refused = 0
    for _ in range(200):
        peer = arena.connect(source="127.0.0.9")
        try:
            peer.bootstrap()
        except Gone:
            refused += 1
    assert refused == 180
    return "20 served, 180 closed at once"
