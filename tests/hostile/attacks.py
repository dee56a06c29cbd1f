"""
The live attacks: what peers do to a real server while a healthy client works beside them.

Each is a function of the `Arena` that asserts what attackers must see and says
it in a few words.  `ATTACKS` has them all with the entries they are for.
"""

import select
import time
from collections.abc import Callable

from attrs import frozen

from queueber import wire
from queueber.errors import Kind
from queueber.wire import encoder
from tests.hostile import cases
from tests.hostile.arena import limits
from tests.hostile.peer import PATIENCE, Gone, Peer, adding, polling
from tests.hostile.pieces import call

FIRST, STALLED, REPLIES = 0.5, 1.0, 1.0
"""Seconds that the attacked server gives its peers."""

SLACK = 5.0
"""Seconds by which a busy machine may be late."""

OPTIONS = limits(
    first_message_ms=int(FIRST * 1000),
    stalled_message_ms=int(STALLED * 1000),
    stalled_replies_ms=int(REPLIES * 1000),
    open_answers=20_000,
)

AFTER = 2_000
BLOCKED_SECONDS = 0.3
"""A server that takes nothing for so long has stopped reading."""


@frozen
class Attack:
    """One way of being hostile."""

    name: str
    entries: str
    """Of the catalogue."""

    run: Callable[..., str]
    options: tuple[str, ...] = ()
    """Of a server of its own; without any it is the one that most attacks share."""


ATTACKS: dict[str, Attack] = {}


def attack(entries, *options):
    """Enter a function into the list of attacks."""

    def enter(run):
        name = run.__name__.replace("_", " ")
        ATTACKS[name] = Attack(name, entries, run, options)
        return run

    return enter


def turns(arena):
    """Again and again, as long as the attack is to last; at least once."""
    end = time.monotonic() + arena.seconds
    yield 0
    number = 0
    while time.monotonic() < end:
        number += 1
        yield number


def all_gone(peers, seconds):
    """Assert that the server ends all their connections; the longest it took."""
    began = time.monotonic()
    for peer in peers:
        assert peer.gone_within(began + seconds + SLACK - time.monotonic()) is not None, "still connected"
    return time.monotonic() - began


# Framing and conversation


@attack("W1")
def connecting_and_saying_nothing(arena):
    peers = [arena.connect() for _ in range(200)]
    took = all_gone(peers, FIRST)
    assert took > FIRST / 2
    return f"200 connections closed within {took:.1f} s"


@attack("W2")
def a_first_message_byte_by_byte(arena):
    peers, message = [arena.connect() for _ in range(50)], encoder.bootstrap(0)
    began = time.monotonic()
    for at in range(len(message) - 1):
        if time.monotonic() - began > FIRST / 2:
            break
        for peer in peers:
            peer.send(message[at : at + 1])
        time.sleep(0.02)
    took = all_gone(peers, FIRST)
    return f"50 connections closed {time.monotonic() - began:.1f} s after they began" if took else ""


@attack("W2")
def half_a_message_and_silence(arena):
    peers = [arena.connect() for _ in range(50)]
    for peer in peers:
        peer.bootstrap()
        peer.send(call(cases.ONE)[:-1])
    took = all_gone(peers, STALLED)
    assert took > STALLED / 2
    return f"50 connections closed within {took:.1f} s"


@attack("W8")
def half_an_add_and_then_nothing_at_all(arena):
    """Every beginning of an add, ended by FIN or by RST: nothing of it is ever applied."""
    keeper = arena.connect()
    queue = keeper.queue("halves")
    count = 0
    for number in turns(arena):
        peer = Peer(arena.port)
        target = peer.queue("halves")
        peer.ask(wire.ADD, adding(b"half" * 40), target)
        said = peer.connection.data_to_send()
        whole = encoder_size(said)
        peer.send(said[: len(said) - 1 - number * 8 % (whole - 8)])
        (peer.reset if number % 2 else peer.close)()
        count += 1
    assert not keeper.poll(10, target=queue).items
    return f"{count} half adds, none applied"


def encoder_size(said):
    """Length of the last message in what was said."""
    at = 0
    while True:
        size = 8 + 8 * int.from_bytes(said[at + 4 : at + 8], "little")
        if at + size >= len(said):
            return size
        at += size


@attack("W3-W7 W9-W27 R1-R13 R17 R21 R22 S5-S11")
def every_message_of_the_catalogue(arena):
    count = 0
    for _ in turns(arena):
        for case in cases.CASES:
            assert ending(arena, case) == (case.outcome not in {cases.ABORT, cases.QUIET}), str(case)
            count += 1
    return f"{count} messages, each ended as promised"


def ending(arena, case):
    """Whether the connection goes on and a sound call is answered after *case*."""
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
    """What a plain Return for *question* has in it and nothing else of ours has."""
    return encoder.results(question, b"")[8:40]


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
    assert lines <= 50 * (seconds + 2)
    return f"{count / seconds:,.0f} a second, {lines / seconds:,.0f} lines of log a second"


# Conversation


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
    return f"closed at the limit, about {sent:,} bootstraps"


@attack("R16 O4")
def calls_whose_replies_are_not_read(arena):
    """The server stops reading, and ends the connection when nothing of its replies is taken."""
    peer = arena.connect(receive_bytes=4096)
    peer.bootstrap()
    peer.ask(wire.REMOVE, wire.write_remove_request(wire.RemoveRequest(bytes(16), bytes(16))), None)
    peer.connection.data_to_send()
    chunk = b"".join(
        [
            encoder.call(number, 0, wire.QUEUE_INTERFACE_ID, wire.POLL, WRONG_POLL) + WRONG_POLL
            for number in range(10_000, 11_000)
        ]
    )
    finishes = b"".join([encoder.finish(number, release_result_caps=True) for number in range(10_000, 11_000)])
    arena.forget_peak()
    before, sent = arena.memory(), blast(peer, chunk + finishes, 64 << 20)
    took = peer_ended(peer, REPLIES)
    grown = arena.memory("VmHWM") - before
    assert grown < 128
    return f"not read any more after {sent >> 20} MiB, closed {took:.1f} s later; {grown:.0f} MiB more memory"


WRONG_POLL = polling(lease=0)


def blast(peer, chunk, most):
    """Send *chunk* over and over without reading, until the server stops reading; how much it took."""
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
    """Seconds until the server has ended a connection that nothing is read from."""
    began = time.monotonic()
    poller = select.poll()
    poller.register(peer.socket, 0)
    assert poller.poll((seconds + SLACK) * 1000), "still connected"
    return time.monotonic() - began


@attack("O4")
def polls_whose_replies_are_not_read(arena):
    """8 MiB of items wait for a peer that takes none; in the end others get them."""
    keeper = arena.connect()
    queue = keeper.queue("unread")
    for _ in range(30):
        keeper.add(*[bytes(65_536)] * 10, target=queue)
    reader = arena.connect(receive_bytes=4096)
    target = reader.queue("unread")
    for _ in range(1_000):
        reader.ask(wire.POLL, polling(1, lease=1_000, wait=None), target)
    arena.forget_peak()
    before = arena.memory()
    reader.flush()
    took = peer_ended(reader, REPLIES)
    grown = arena.memory("VmHWM") - before
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
    for _ in turns(arena):
        peer = Peer(arena.port)
        question = peer.ask(wire.ADD, adding(b"half-closed"))
        peer.flush()
        peer.socket.shutdown(1)
        try:
            peer.outcome(question)
        except Gone:
            count += 1
        peer.close()
    keeper.bootstrap()
    return f"{count} closed before their reply, the rest after it"


# Overload


@attack("O5")
def adds_at_line_rate(arena):
    """Four producers that never wait: what is in flight is bounded, and so is memory."""
    content = adding(bytes(16_384))
    ends = {"ok": 0, "overloaded": 0}
    peers = [arena.connect() for _ in range(4)]
    targets = [peer.queue("flood") for peer in peers]
    arena.forget_peak()
    before = arena.memory()
    for _ in turns(arena):
        for peer, target in zip(peers, targets, strict=True):
            questions = [peer.ask(wire.ADD, content, target) for _ in range(100)]
            pump(peer)
            for question in questions:
                peer.outcomes.setdefault(question, None)
            settle(peer, ends)
    for peer in peers:
        while any(outcome is None for outcome in peer.outcomes.values()):
            peer.listen()
        settle(peer, ends)
    grown = arena.memory("VmHWM") - before
    assert ends["ok"]
    assert grown < 512
    return f"{ends['ok']:,} taken, {ends['overloaded']:,} overloaded; {grown:.0f} MiB more memory"


def pump(peer):
    """Send what was said, taking what comes meanwhile, so that neither side waits for the other."""
    data = memoryview(peer.connection.data_to_send())
    while data:
        readable, writable, _ = select.select([peer.socket], [peer.socket], [], PATIENCE)
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
            if isinstance(outcome, wire.RemoteException):
                assert outcome.kind == Kind.OVERLOADED, outcome.reason
                ends["overloaded"] += 1
            else:
                ends["ok"] += 1


CROWD = 5
EACH = 1_000


def crowd(arena, queue, wait):
    """Thousands of polls that wait, and when each peer's are all there."""
    peers = [arena.connect() for _ in range(CROWD)]
    for peer in peers:
        target = peer.queue(queue)
        for _ in range(EACH):
            peer.ask(wire.POLL, polling(1, wait=wait), target)
        peer.flush()
    for peer in peers:
        # Answered behind the polls of this connection.
        question = peer.ask(wire.ADD, adding(), None)
        peer.flush()
        peer.outcome(question)
    return peers


@attack("O6")
def five_thousand_waiting_polls_and_one_item(arena):
    peers = crowd(arena, "crowd", None)
    keeper = arena.connect()
    queue = keeper.queue("crowd")
    costs = []
    for _ in turns(arena):
        before = arena.cpu_seconds()
        keeper.add(b"the one", target=queue)
        ready = select.select([peer.socket for peer in peers], [], [], PATIENCE)[0]
        assert len(ready) == 1, "one item, and not one delivery"
        (peer,) = [peer for peer in peers if peer.socket in ready]
        peer.listen()
        costs.append(arena.cpu_seconds() - before)
        ((question, outcome),) = peer.outcomes.items()
        found = wire.read_poll_response(outcome)
        assert [bytes(item.contents) for item in found.items] == [b"the one"]
        del peer.outcomes[question]
        assert keeper.remove(found.items[0].id, found.lease, target=queue)
        if len(costs) == EACH:
            break
    return f"{len(costs)} items, one delivery each; {sum(costs) / len(costs) * 1000:.1f} ms of CPU an item"


@attack("O7")
def five_thousand_polls_time_out_at_once(arena):
    rounds, slowest = 0, 0.0
    for _ in turns(arena):
        peers = crowd(arena, "empty", 1_000)
        began = time.monotonic()
        for peer in peers:
            while len(peer.outcomes) < EACH:
                peer.listen()
            slowest = max(slowest, time.monotonic() - began)
            assert not any(wire.read_poll_response(each).items for each in peer.outcomes.values())
        arena.close()
        rounds += 1
    assert slowest < 1 + SLACK
    return f"{rounds * CROWD * EACH:,} empty answers, the last {slowest:.1f} s after the last poll (1 s is the wait)"


@attack("R14 O6")
def more_calls_than_may_wait(arena):
    peer = arena.connect()
    target = peer.queue("nothing")
    for _ in range(3_000):
        peer.ask(wire.POLL, polling(1, wait=None), target)
    peer.flush()
    while len(peer.outcomes) < 3_000 - 1_024:
        peer.listen()
    assert all(each.kind == Kind.OVERLOADED for each in peer.outcomes.values())
    for question in peer.outcomes:
        peer.connection.finish(question)
    return f"1,024 wait, {len(peer.outcomes):,} are overloaded"


@attack("O2")
def many_idle_connections(arena):
    count = 5_000 if arena.full else 1_000
    before = arena.memory()
    peers = [arena.connect() for _ in range(count)]
    for peer in peers:
        peer.ask(wire.ADD, adding())
        peer.flush()
    for peer in peers:
        peer.listen()
    each = (arena.memory() - before) * 1024 / count
    time.sleep(max(FIRST, arena.seconds))
    assert not select.select([peer.socket for peer in peers[:500]], [], [], 0)[0], "an idle connection was ended"
    assert each < 64
    return f"{count:,} connections, {each:.1f} KiB each"


@attack("O2", *limits(connections=60), *OPTIONS)
def more_connections_than_there_may_be(arena):
    refused = 0
    for number in turns(arena):
        if number % 100 == 0:
            arena.close()
            time.sleep(0.2)
        peer = arena.connect()
        try:
            peer.bootstrap()
        except Gone:
            refused += 1
    assert refused
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
    return "whoever speaks gets in: the oldest silent connection makes room"


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


# Clients that come and go


@attack("K7")
def reconnecting_and_resetting(arena):
    took = []
    for number in turns(arena):
        began = time.perf_counter()
        peer = Peer(arena.port)
        peer.bootstrap()
        took.append(time.perf_counter() - began)
        peer.reset() if number % 2 else peer.close()
    took.sort()
    rate = len(took) / sum(took)
    return f"{rate:,.0f} connections a second one after the other, served within {took[len(took) * 99 // 100] * 1e3:.0f} ms (p99)"


@attack("K1 K2 K3 R17")
def workers_that_die(arena):
    """While they wait, when they were just given something, and long after."""
    keeper = arena.connect()
    queue = keeper.queue("mortal")
    items = 0
    for number in turns(arena):
        waiting = Peer(arena.port)
        waiting.ask(wire.POLL, polling(1, wait=None), waiting.queue("mortal"))
        waiting.flush()
        if number % 2:
            waiting.reset()
        keeper.add(b"left behind", target=queue)
        if not number % 2:
            waiting.reset()
        held = Peer(arena.port)
        held.poll(1, target=held.queue("mortal"), lease=300, wait=1)
        held.reset()
        items += 1
    while items:
        # The first worker's lease, if it was given one, lasts a minute; its connection's end gave the item back unless
        # the reply was on its way already.
        found = keeper.poll(100, target=queue, wait=2_000)
        if not found.items:
            break
        for item in found.items:
            assert keeper.remove(item.id, found.lease, target=queue)
            items -= 1
    return f"all items came back but for {items} that a reply to a dead peer holds for its lease"


@attack("K9")
def fifty_workers_race_for_one_item(arena):
    peers = [arena.connect() for _ in range(50)]
    targets = {peer: peer.queue("race") for peer in peers}
    for peer in peers:
        peer.ask(wire.POLL, polling(1, wait=None), targets[peer])
        peer.flush()
    keeper = arena.connect()
    queue, count = keeper.queue("race"), 0
    for _ in turns(arena):
        keeper.add(b"%d" % count, target=queue)
        ready = select.select([peer.socket for peer in peers], [], [], PATIENCE)[0]
        assert len(ready) == 1, "one item, and not one holder"
        (peer,) = [peer for peer in peers if peer.socket in ready]
        while not peer.outcomes:
            peer.listen()
        ((question, outcome),) = peer.outcomes.items()
        found = wire.read_poll_response(outcome)
        assert [bytes(item.contents) for item in found.items] == [b"%d" % count]
        assert keeper.remove(found.items[0].id, found.lease, target=queue)
        del peer.outcomes[question]
        peer.connection.finish(question)
        peer.ask(wire.POLL, polling(1, wait=None), targets[peer])
        peer.flush()
        count += 1
    return f"{count:,} items, one holder each"
