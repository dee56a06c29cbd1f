"""Valid messages with senseless contents: numbers at the ends of their range, invalid keys, unlucky moments."""

import pytest

from queueber import api
from queueber.capnp import layout
from queueber.errors import Kind
from queueber.limits import DEFAULTS
from queueber.rpc import RemoteException
from queueber.testing import InProcessServer
from queueber.units import MS_PER_SECOND, SpanMs
from tests.support.peer import Caller, adding

SECONDS_MAX = DEFAULTS.delay_ms // MS_PER_SECOND


class Client(Caller):
    """A server in this process, and a client of it."""

    def __init__(self, began=0.0):
        super().__init__()
        self.server = InProcessServer()
        self.server.reactor.rightNow = began
        self.protocol, self.transport = self.server.connect()

    def send(self, data):
        self.protocol.dataReceived(data)
        self.server.settle()
        assert not self.transport.disconnecting

    def receive(self):
        data = self.transport.value()
        assert data, "there is no answer"
        self.transport.clear()
        return data

    def failed(self, method, content):
        """Return why it failed."""
        outcome = self.call(method, content)
        assert isinstance(outcome, RemoteException) and outcome.kind == Kind.FAILED
        return outcome.reason

    def pass_time(self, seconds):
        """Let time go on, and sweep."""
        self.server.reactor.advance(seconds)
        self.server.sweeper.sweep()
        self.server.settle()


@pytest.fixture
def client():
    return Client()


def request(name, **fields):
    """Return parameters with one struct in them, its fields as given."""
    return layout(f"Queue.{name}$Params").build(req=fields)


@pytest.mark.parametrize("seconds", [2**64 - 1, 2**63, 2**53, SECONDS_MAX + 1])
def test_a_delay_beyond_the_limit_fails_and_stores_nothing(client, seconds):
    items = [{"contents": b"good"}, {"contents": b"x", "visibilityTimeoutSecs": seconds}]
    assert "visibilityTimeout" in client.failed(api.ADD, request("add", items=items))
    assert client.server.broker.stats().items == 0


def test_the_longest_delay_is_taken(client):
    items = [{"contents": b"x", "visibilityTimeoutSecs": SECONDS_MAX}]
    assert len(api.read_add_response(client.call(api.ADD, request("add", items=items))).ids) == 1


@pytest.mark.parametrize("seconds", [0, 2**64 - 1, 2**63, DEFAULTS.lease_ms // MS_PER_SECOND + 1])
def test_a_lease_of_nothing_or_beyond_the_limit_fails(client, seconds):
    """Trap 7: it is not replaced by a lease that can be had."""
    client.add(b"a")
    assert "lease" in client.failed(api.POLL, request("poll", leaseValiditySecs=seconds, noWait=True))
    lease = client.poll().lease
    assert "lease" in client.failed(api.EXTEND, request("extend", lease=lease, leaseValiditySecs=seconds))


@pytest.mark.parametrize(("number", "given"), [(0, 1), (2**32 - 1, 1_000)])
def test_numbers_of_items_are_clamped(client, number, given):
    for _ in range(2):
        client.add(*[b"x"] * 600)
    outcome = client.call(api.POLL, request("poll", leaseValiditySecs=1, numItems=number, noWait=True))
    assert len(api.read_poll_response(outcome).items) == given


@pytest.mark.parametrize("seconds", [0, 2**64 - 1, 2**63])
def test_a_wait_without_end_is_ended_by_an_item(client, seconds):
    waiting = request("poll", leaseValiditySecs=1, timeoutSecs=seconds)
    client.ask(api.POLL, waiting)
    client.flush()
    client.pass_time(10 * 86_400)
    assert client.server.broker.stats().waiting_polls == 1
    client.add(b"at last")
    assert client.server.broker.stats().waiting_polls == 0


@pytest.mark.parametrize(
    "item_id",
    [b"", b"x" * 15, b"x" * 17, bytes(1 << 20), b"\xff" * 16, bytes(16), b"I" + bytes(15), b"../../etc/passwd"],
    ids=lambda each: f"{len(each)}-{each[:4].hex()}",
)
def test_an_id_that_is_none_is_unknown_and_names_no_other_row(client, item_id):
    """Trap 15."""
    client.add(b"a", b"b")
    lease = client.poll(count=1).lease
    before = client.server.store.recover(), client.server.broker.dump()
    assert not client.remove(item_id, lease)
    assert (client.server.store.recover(), client.server.broker.dump()) == before


@pytest.mark.parametrize("lease", [b"", b"x" * 15, b"x" * 17])
def test_a_lease_that_is_not_16_bytes_fails(client, lease):
    reason = f"lease is {len(lease)} bytes; it must be 16"
    assert reason in client.failed(api.REMOVE, request("remove", id=bytes(16), lease=lease))
    assert reason in client.failed(api.EXTEND, request("extend", lease=lease, leaseValiditySecs=1))


def test_a_lease_of_zeros_is_unknown(client):
    (item_id,) = client.add(b"a")
    client.poll()
    assert not client.remove(item_id, bytes(16))


MOMENTS = [0.0, 0.0001, 0.4999, 0.9989, 0.999, 0.9991, 0.9999]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_lease_is_never_shorter_than_asked_whatever_the_moment(moment):
    client = Client(moment)
    client.add(b"a")
    outcome = client.call(api.POLL, request("poll", leaseValiditySecs=1, noWait=True))
    assert len(api.read_poll_response(outcome).items) == 1
    client.pass_time(0.9999)
    assert not client.poll().items
    client.pass_time(0.0012)
    assert [item.attempt for item in client.poll().items] == [2]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_delay_is_never_shorter_than_asked_whatever_the_moment(moment):
    client = Client(moment)
    items = [{"contents": b"a", "visibilityTimeoutSecs": 1}]
    client.call(api.ADD, request("add", items=items))
    client.pass_time(0.9999)
    assert not client.poll().items
    client.pass_time(0.0012)
    assert len(client.poll().items) == 1


def test_an_add_that_is_repeated_is_two_items(client):
    """A client that did not get the reply cannot know better."""
    content = adding(b"once more")
    client.call(api.ADD, content)
    client.call(api.ADD, content)
    assert [bytes(item.contents) for item in client.poll(count=3).items] == [b"once more"] * 2


def test_a_lease_may_be_held_as_long_as_a_client_extends_it(client):
    client.add(b"a")
    lease = client.poll(lease=60_000).lease
    extend = api.write_extend_request(api.ExtendRequest(lease, SpanMs(60_000)))
    for _ in range(100):
        client.pass_time(50)
        assert api.read_extend_response(client.call(api.EXTEND, extend))
    client.pass_time(61)
    assert not api.read_extend_response(client.call(api.EXTEND, extend))
    assert [item.attempt for item in client.poll().items] == [2]
