"""Attacks with settles, headers, sessions, looks into queues, and adds that are to happen once."""

import os
import time

from queueber import api, rpc
from queueber.api import control
from queueber.api import control_types as types
from queueber.errors import Kind
from queueber.fixed_limits import HEADER_BYTES_MAX, HEADERS_MAX, SETTLEMENTS_MAX
from queueber.units import SpanMs
from tests.hostile.arena import limits
from tests.hostile.attack import OPTIONS, REPLIES, SHORT_TIMEOUTS, attack, turns
from tests.hostile.overload import pump
from tests.hostile.pieces import call
from tests.hostile.streams import blast, peer_ended
from tests.support.peer import Peer

ENDED_MAX = 1_000
BURST = 500


def settle(peer, entries, target):
    """Settle; return the response, or the exception."""
    outcome = peer.call(api.SETTLE, api.write_settle_request(api.SettleRequest(entries, (), False)), target)
    return outcome if isinstance(outcome, rpc.RemoteException) else api.read_settle_response(outcome)


@attack("S22")
def settles_of_very_many_entries(arena):
    """A thousand entries are one commit, one more is refused, and of those for one item only the first is done."""
    peer, count = arena.connect(), 0
    queue = peer.queue("settles")
    for _ in turns(arena):
        peer.add(*[b"x"] * SETTLEMENTS_MAX, target=queue)
        found = peer.poll(SETTLEMENTS_MAX, target=queue)
        entries = [
            api.Settlement(found.lease, item.id, api.Action.FAIL, SpanMs(60_000), "e" * 1_000) for item in found.items
        ]
        above = settle(peer, [*entries, entries[0]], queue)
        assert above.kind == Kind.FAILED
        first = api.Settlement(found.lease, found.items[0].id, api.Action.REMOVE)
        outcomes = [each.outcome for each in settle(peer, [first] * SETTLEMENTS_MAX, queue).settled]
        assert outcomes == [api.Outcome.DONE] + [api.Outcome.NOT_FOUND] * (SETTLEMENTS_MAX - 1)
        done = settle(peer, entries, queue)
        assert [each.outcome for each in done.settled] == [api.Outcome.NOT_FOUND] + [api.Outcome.DONE] * (
            len(entries) - 1
        )
        count += 1
    return f"{count} times a thousand entries, each decided once"


@attack("S23")
def headers_as_large_as_they_may_be(arena):
    """Headers count in replies, which stay within a frame; above the limits nothing is stored."""
    peer, count, wanted = arena.connect(), 0, 1_200 if arena.full else 200
    queue = peer.queue("headers")
    most = api.ItemOptions(headers=(("h", bytes(HEADER_BYTES_MAX - 1)),))
    bad = (
        api.ItemOptions(headers=(("h", bytes(HEADER_BYTES_MAX)),)),
        api.ItemOptions(headers=tuple((str(number), b"") for number in range(HEADERS_MAX + 1))),
    )

    def add(options, items):
        request = api.AddRequest([api.NewItem(bytes(15_000), SpanMs(0), each) for each in options] * items)
        return peer.call(api.ADD, api.write_add_request(request), queue)

    for _ in turns(arena):
        for options in bad:
            assert add([most, options], 1).kind == Kind.FAILED
        assert not peer.poll(1, target=queue).items
        for _ in range(wanted // 100):
            assert isinstance(add([most], 100), rpc.Results)
        items = 0
        while items < wanted:
            # A frame of more than 16 MiB would end the connection here.
            found = peer.poll(1_000, target=queue)
            assert found.items
            settle(peer, [api.Settlement(found.lease, b"", api.Action.REMOVE)], queue)
            items += len(found.items)
        count += items
    return f"{count:,} items with 4 KiB of headers, within frames of 16 MiB"


def broker_call(peer, method, content):
    """Make a call of the Broker; return its question."""
    if peer.root is None:
        peer.root = rpc.PromisedAnswer(peer.connection.bootstrap())
    return peer.connection.call(peer.root, api.BROKER_INTERFACE_ID, method, content)


def attach(peer, session):
    """Attach a session; return the outcome."""
    content = api.write_attach_request(api.AttachRequest(session))
    question = broker_call(peer, api.ATTACH, content)
    peer.flush()
    outcome = peer.outcome(question)
    peer.connection.finish(question)
    return outcome


def under(session):
    """Return the parameters of a poll under a session."""
    return api.write_poll_request(api.PollRequest(SpanMs(0), 1, None, no_wait=True, session=session))


def pumped(peer, questions):
    """Send the calls, and return their outcomes."""
    pump(peer)
    outcomes = [peer.outcome(question) for question in questions]
    for question in questions:
        peer.connection.finish(question)
    return outcomes


@attack("S24")
def a_session_that_is_attached_again_and_again(arena):
    """A session's leases are returned once for each connection, so that small calls cause no large replies."""
    session, count = os.urandom(16), 0
    peer = arena.connect()
    attach(peer, session)
    queue = peer.queue("attached")
    peer.add(*[b"x"] * BURST, target=queue)
    leases = [
        api.read_poll_response(each).lease
        for each in pumped(peer, [peer.ask(api.POLL, under(session), queue) for _ in range(BURST)])
    ]
    content = api.write_attach_request(api.AttachRequest(session))
    for _ in turns(arena):
        for outcome in pumped(peer, [broker_call(peer, api.ATTACH, content) for _ in range(BURST)]):
            assert not api.read_attach_response(outcome).leases
        count += BURST
    for lease in leases:
        settle(peer, [api.Settlement(lease, b"", api.Action.REMOVE)], queue)
    return f"{count:,} attaches, the {BURST} leases returned by none"


@attack("S25")
def a_session_that_never_pings(arena):
    """Operators end its leases: only the last are remembered for a ping."""
    session, count = os.urandom(16), 0
    peer, operator = arena.connect(), arena.connect()
    attach(peer, session)
    queue = peer.queue("silent")
    operator.bootstrap()
    asked = operator.connection.call(
        operator.root, api.BROKER_INTERFACE_ID, api.CONTROL, api.write_queue_request("silent")
    )
    controlled = rpc.PromisedAnswer(asked, (0,))
    while count <= ENDED_MAX:
        peer.add(*[b"x"] * BURST, target=queue)
        polls = pumped(peer, [peer.ask(api.POLL, under(session), queue) for _ in range(BURST)])
        leases = [api.read_poll_response(each).lease for each in polls]
        for lease in leases:
            content = control.write_control_request(types.END_LEASE, lease)
            operator.connection.call(controlled, types.CONTROL_INTERFACE_ID, types.END_LEASE, content)
        pump(operator)
        operator.bootstrap()
        count += len(leases)
    question = broker_call(peer, api.PING, api.write_ping_request())
    peer.flush()
    ended = api.read_ping_response(peer.outcome(question))
    assert len(ended) <= ENDED_MAX
    return f"{count:,} leases ended, {len(ended):,} of them reported"


@attack("O16", *limits(sessions=BURST), *OPTIONS)
def attaches_of_ever_new_sessions(arena):
    """Above the limit they are overloaded; those without leases end with their connection, and leave no memory."""
    count = 0
    arena.connect().bootstrap()
    arena.forget_peak()
    before = arena.server.memory()
    for _ in turns(arena):
        peer = Peer(arena.port)
        while isinstance(attach(peer, os.urandom(16)), rpc.RemoteException):
            # The server has not seen yet that the peer before is gone.
            time.sleep(0.01)
        contents = [api.write_attach_request(api.AttachRequest(os.urandom(16))) for _ in range(2 * BURST)]
        outcomes = pumped(peer, [broker_call(peer, api.ATTACH, each) for each in contents])
        refused = [each for each in outcomes if isinstance(each, rpc.RemoteException)]
        assert {each.kind for each in refused} == {Kind.OVERLOADED}
        assert len(outcomes) - len(refused) < BURST
        peer.reset()
        count += len(outcomes)
    grown = arena.server.memory("VmHWM") - before
    assert grown < 64
    return f"{count:,} attaches, at most {BURST} at a time; {grown:.0f} MiB more memory"


@attack("O17", *SHORT_TIMEOUTS)
def pings_whose_replies_are_not_read(arena):
    """The server stops reading, and ends the connection when none of its replies are taken."""
    peer = arena.connect(receive_bytes=4096)
    peer.bootstrap()
    content = api.write_ping_request()
    ping = b"".join(
        [
            call(content, question=number, interface=api.BROKER_INTERFACE_ID, method=api.PING) + finished(number)
            for number in range(10_000, 11_000)
        ]
    )
    arena.forget_peak()
    before = arena.server.memory()
    sent = blast(peer, ping, 64 << 20)
    took = peer_ended(peer, REPLIES)
    grown = arena.server.memory("VmHWM") - before
    assert grown < 128
    return f"not read any more after {sent / (1 << 20):.1f} MiB, closed after {took:.1f} s; {grown:.0f} MiB more memory"


def finished(number):
    """Return a message that ends the question."""
    return rpc.encoder.finish(number, release_result_caps=True)


@attack("O18", *limits(request_bytes=1 << 20, pending_bytes=4 << 20), *OPTIONS)
def peeks_and_look_ups_without_end(arena):
    """They are answered or overloaded; the memory for them is bounded."""
    peer = arena.connect()
    queue = peer.queue("looked at")
    (number, *_) = peer.add(*[bytes(1_000)] * 100, target=queue)
    asked = peer.connection.call(peer.root, api.BROKER_INTERFACE_ID, api.CONTROL, api.write_queue_request("looked at"))
    controlled = rpc.PromisedAnswer(asked, (0,))
    peek = control.write_control_request(types.PEEK, types.PeekRequest(limit=100, contents_bytes=1_000))
    requests = [(types.PEEK, peek), (types.GET, control.write_control_request(types.GET, number))]
    ends = {"ok": 0, "overloaded": 0}
    arena.forget_peak()
    before = arena.server.memory()
    for turn in turns(arena):
        method, content = requests[turn % 2]
        for outcome in pumped(
            peer,
            [peer.connection.call(controlled, types.CONTROL_INTERFACE_ID, method, content) for _ in range(BURST)],
        ):
            refused = isinstance(outcome, rpc.RemoteException)
            assert not refused or outcome.kind == Kind.OVERLOADED, outcome.reason
            ends["overloaded" if refused else "ok"] += 1
    grown = arena.server.memory("VmHWM") - before
    assert ends["ok"]
    assert grown < 128
    return f"{ends['ok']:,} answered, {ends['overloaded']:,} overloaded; {grown:.0f} MiB more memory"


@attack("O19")
def keys_and_request_ids_without_end(arena):
    """Each is a record on the disk, and nothing in memory."""
    peer, count = arena.connect(), 0
    queue = peer.queue("keys")
    arena.forget_peak()
    before = arena.server.memory()
    for turn in turns(arena):
        for _ in range(20):
            options = api.ItemOptions(dedup_key=os.urandom(200))
            item = api.NewItem(b"x", SpanMs(0), options if turn % 2 else None)
            request = api.AddRequest([item], b"" if turn % 2 else os.urandom(16))
            peer.ask(api.ADD, api.write_add_request(request), queue)
        peer.flush()
        found = peer.poll(1_000, target=queue, wait=5_000)
        settle(peer, [api.Settlement(found.lease, b"", api.Action.REMOVE)], queue)
        count += 20
    grown = arena.server.memory("VmHWM") - before
    assert grown < 128
    return f"{count:,} adds, {grown:.0f} MiB more memory"
