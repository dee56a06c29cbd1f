# ruff: noqa: N802, N815, C901  (the transport's names; a check is a list of what may be wrong)
"""
Clients of the simulated server, and the promises that they check.

Everything here is seen from outside: calls, replies, and a clock.  What was
acknowledged is a fact; what was refused must have done nothing; what got no
reply may have happened, whole or not at all.  `tests/support/queue_model.py`
cannot stand in for these facts, because it has no such doubt.
"""

from attrs import define, field
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from queueber import api, rpc
from queueber.errors import Kind
from queueber.limits import Limits
from queueber.units import SpanMs
from tests.support.queue_model import BrokenPromise

QUEUES = ("default", "other")

RESTART_GRACE_MS = 10_000
"""The default of `--lease-restart-grace`."""


@define(eq=False)
class ItemFact:
    """The facts that are known about one item."""

    contents: bytes
    queue: str
    delay: int
    invoked: int
    added: str = "asked"
    """asked, acked, refused, unknown, or absent: it was unknown and is not there."""

    id: bytes | None = None
    attempts: int = 0
    excused: bool = False
    """Whether it was leased at a start since: if that lease ended while the server was down, it counts no attempt."""

    removed: bool = False
    removing: set = field(factory=set)
    """Calls that may have removed it."""

    leases: list = field(factory=list)
    siblings: list = field(factory=list)


@define(eq=False)
class LeaseFact:
    """The facts that are known about one lease: its deadline lies between two moments of queue time."""

    id: bytes
    queue: str
    low: int
    high: int
    items: list
    extending: bool = False


@define(eq=False)
class Call:
    """A call without a reply."""

    kind: str
    invoked: int
    queue: str
    facts: tuple = ()
    span: int = 0
    wait: int | None = 0
    certain: bool = False
    """A remove or extend that had to be true when it was made."""


class Transport(StringTransport):
    """A transport that passes bytes to its client in place of a socket."""

    gone = False
    client = None

    def write(self, data):
        # Two peers hear of what was said in the order in which it was said.
        self.client.facts.said.append((self.client, data))

    def abortConnection(self):
        self.gone = True

    loseConnection = abortConnection


@define(eq=False)
class Client:
    """One connection."""

    facts: "Facts"
    server: object
    protocol: object = field(init=False)
    transport: Transport = field(factory=Transport)
    connection: rpc.Connection = field(factory=lambda: rpc.Connection(limits=Limits()))
    calls: dict = field(factory=dict)
    targets: dict = field(factory=dict)
    named: dict = field(factory=dict)
    """Questions whose result will be a capability, with the queue's name and the reader of the result."""

    def __attrs_post_init__(self):
        self.transport.client = self
        self.protocol = self.server.factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        root = rpc.PromisedAnswer(self.connection.bootstrap())
        asked = api.write_queue_request("other")
        other = self.connection.call(root, api.BROKER_INTERFACE_ID, api.QUEUE, asked)
        self.targets = {"default": root, "other": rpc.PromisedAnswer(other, (0,))}
        self.named = {root.question: ("default", api.read_bootstrap), other: ("other", api.read_queue_response)}
        self.protocol.dataReceived(self.connection.data_to_send())

    def ask(self, *calls):
        """Make *calls*, each a method, its parameters and the facts about it, in one write."""
        for method, content, call in calls:
            question = self.connection.call(self.targets[call.queue], api.QUEUE_INTERFACE_ID, method, content)
            self.calls[question] = call
        self.protocol.dataReceived(self.connection.data_to_send())

    def give_up(self, question):
        """Finish a poll before it has returned; a later reply is ignored."""
        del self.calls[question]
        self.connection.finish(question)
        self.protocol.dataReceived(self.connection.data_to_send())

    def hear(self, data):
        """Process the bytes that have arrived."""
        for event in self.connection.receive_data(data):
            if isinstance(event, rpc.Aborted):
                raise BrokenPromise(f"the server aborted: {event.reason}")
            if event.question in self.named and type(event.outcome) is rpc.Results:
                # Later calls are made to what it gave, which is how most clients do it.
                name, read = self.named.pop(event.question)
                self.targets[name] = rpc.ImportedCap(read(event.outcome))
            call = self.calls.pop(event.question, None)
            if call is not None:
                self.connection.finish(event.question)
                self.facts.returned(call, event.outcome)

    def lose(self, *, politely):
        """Lose the connection, with everything that was on its way."""
        self.protocol.connectionLost(Failure(ConnectionDone() if politely else ConnectionLost()))
        self.forget()

    def forget(self):
        for call in self.calls.values():
            self.facts.unknown(call)
        self.calls.clear()


@define(eq=False)
class Facts:
    """The knowledge of all clients."""

    now: object
    """Returns queue time."""

    items: dict = field(factory=dict)
    """By contents, which are unique."""

    ids: dict = field(factory=dict)
    leases: dict = field(factory=dict)
    disturbed: bool = False
    """Whether a read has failed or is about to fail: a poll may have been answered with that error."""

    counts: dict = field(factory=dict)
    said: list = field(factory=list)
    """Bytes that the server has sent and that have not arrived, each with its client."""

    def hear(self, clients):
        """Deliver the bytes for *clients*; those for others are lost."""
        said, self.said = self.said, []
        for client, data in said:
            if client in clients:
                client.hear(data)

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    # Calls

    def adding(self, queue, specified, delays):
        facts = [
            ItemFact(contents, queue, delay, self.now()) for contents, delay in zip(specified, delays, strict=True)
        ]
        for fact in facts:
            fact.siblings = facts
            self.items[fact.contents] = fact
        return Call("add", self.now(), queue, tuple(facts))

    def removing(self, queue, lease, item):
        now = self.now()
        held = item in lease.items and queue == lease.queue and not item.removed
        call = Call("remove", now, queue, (lease, item), certain=held and not item.removing and lease.low > now)
        if held:
            item.removing.add(call)
        return call

    def extending(self, queue, lease, span):
        now = self.now()
        certain = queue == lease.queue and lease.low > now and any(held(item) for item in lease.items)
        if queue == lease.queue:
            lease.extending = True
            lease.low = min(lease.low, now + span)
        return Call("extend", now, queue, (lease,), span=span, certain=certain)

    # Replies

    def returned(self, call, outcome):
        if isinstance(outcome, rpc.Results):
            getattr(self, f"_{call.kind}")(call, outcome)
        elif isinstance(outcome, rpc.RemoteException):
            self._refused(call, outcome)
        else:
            self.count("canceled")

    def _refused(self, call, why):
        allowed = {"add": {Kind.OVERLOADED, Kind.DISCONNECTED}, "poll": {Kind.OVERLOADED, Kind.DISCONNECTED}}
        if call.kind == "poll" and self.disturbed:
            allowed["poll"].add(Kind.FAILED)
        if why.kind not in allowed.get(call.kind, ()):
            raise BrokenPromise(f"{call.kind} was refused: {why.reason}")
        self.count(f"refused {call.kind}")
        for fact in call.facts:
            fact.added = "refused"

    def _add(self, call, outcome):
        ids = [bytes(each) for each in api.read_add_response(outcome).ids]
        if len(ids) != len(call.facts):
            raise BrokenPromise("an add was answered with another number of ids")
        if ids != sorted(ids) or any(len(each) != 16 for each in ids):
            raise BrokenPromise("the ids of an add are out of order")
        for fact, item_id in zip(call.facts, ids, strict=True):
            if fact.id is None:
                self._exists(fact, item_id)
            elif fact.id != item_id:
                raise BrokenPromise(f"{fact.contents} has two ids")
        self.count("added")

    def _exists(self, fact, item_id):
        if self.ids.setdefault(item_id, fact) is not fact:
            raise BrokenPromise(f"two items have the id {item_id.hex()}")
        fact.id, fact.added = item_id, "acked"

    def _poll(self, call, outcome):
        response = api.read_poll_response(outcome)
        if not response.items:
            if call.wait is None or self.now() < call.invoked + call.wait:
                raise BrokenPromise(f"a poll that waits for {call.wait} ms was answered with nothing too early")
            self.count("empty")
            return
        decided = response.deadline - call.span - 1
        if not call.invoked <= decided <= self.now():
            raise BrokenPromise(
                f"a lease of {call.span} ms ends at {response.deadline}; asked at {call.invoked}, {self.now()}"
            )
        lease_id = bytes(response.lease)
        if lease_id in self.leases:
            raise BrokenPromise("two polls have the same lease")
        facts = [self._delivered(call, item, decided) for item in response.items]
        lease = LeaseFact(lease_id, call.queue, response.deadline, response.deadline, facts)
        self.leases[lease_id] = lease
        for fact in facts:
            fact.leases.append(lease)
        self.count("delivered")

    def _delivered(self, call, item, decided):
        contents = bytes(item.contents)
        fact = self.items.get(contents)
        if fact is None or fact.added in ("refused", "absent") or fact.queue != call.queue:
            raise BrokenPromise(f"unexpected: {contents} in {call.queue} is {fact}")
        if fact.id is None:
            self._exists(fact, bytes(item.id))
            # What is there of an add is there whole.
            for each in fact.siblings:
                if each.added in ("asked", "unknown"):
                    each.added = "acked"
        elif fact.id != bytes(item.id):
            raise BrokenPromise(f"{contents} came with another id")
        if fact.removed:
            raise BrokenPromise(f"resurrected: {contents}")
        if decided < fact.invoked + fact.delay:
            raise BrokenPromise(f"early: {contents} at {decided}, added at {fact.invoked} with a delay of {fact.delay}")
        if item.attempt <= fact.attempts - fact.excused:
            raise BrokenPromise(f"attempt {item.attempt} of {contents} after {fact.attempts}")
        for lease in fact.leases:
            if lease.low > decided:
                raise BrokenPromise(f"double-held: {contents} at {decided} under a lease until {lease.low}")
        fact.removing.clear()
        fact.attempts, fact.excused = item.attempt, False
        return fact

    def _remove(self, call, outcome):
        lease, item = call.facts
        item.removing.discard(call)
        if api.read_remove_response(outcome):
            if item.removed:
                raise BrokenPromise(f"double-removed: {item.contents}")
            # Of an extend that has taken effect its peer may hear later than another peer hears of this.
            ended = lease.high <= call.invoked and not lease.extending
            if item not in lease.items or call.queue != lease.queue or ended:
                raise BrokenPromise(f"a stale or foreign lease removed {item.contents}")
            item.removed = True
            self.count("removed")
            return
        if call.certain and lease.low > self.now() and not item.removed and not item.removing:
            raise BrokenPromise(f"a live lease could not remove {item.contents}")
        self.count("not removed")

    def _extend(self, call, outcome):
        (lease,) = call.facts
        if call.queue == lease.queue:
            lease.extending = False
        if api.read_extend_response(outcome):
            if call.queue != lease.queue or lease.high <= call.invoked:
                raise BrokenPromise("a stale or foreign lease was extended")
            lease.low, lease.high = call.invoked + call.span, self.now() + call.span + 1
            self.count("extended")
            return
        if call.certain and lease.low > self.now() and any(held(item) for item in lease.items):
            raise BrokenPromise("a live lease could not be extended")
        self.count("not extended")

    def unknown(self, call):
        """Note that there will be no reply."""
        self.count("unknown")
        if call.kind == "add":
            for fact in call.facts:
                if fact.added == "asked":
                    fact.added = "unknown"
        elif call.kind == "extend":
            (lease,) = call.facts
            lease.high = max(lease.high, self.now() + call.span + 1)

    # After a crash

    def check(self, rows):
        """Check that *rows*, which a server has found at its start, have everything that was promised."""
        names = {number: record.name for number, record in rows.queues.items()}
        there = {item.contents: (names[number], key.id) for (number, key), item in rows.items.items()}
        for contents in there.keys() - self.items.keys():
            raise BrokenPromise(f"unexpected: {contents} is on the disk")
        leased = {
            item.contents: (lease_id, record.deadline, record.grace)
            for lease_id, record in rows.leases.items()
            for key in record.keys
            if (item := rows.items.get((record.queue, key))) is not None
        }
        for contents in leased:
            self.items[contents].excused = True
        for fact in self.items.values():
            self._check_item(fact, there.get(fact.contents))
        now = self.now()
        for lease in self.leases.values():
            lease.extending = False
            self._check_lease(lease, leased, now)

    def _check_item(self, fact, found):
        if found is not None:
            if fact.added in ("refused", "absent"):
                raise BrokenPromise(f"{fact.contents} is there, and was {fact.added}")
            if fact.removed:
                raise BrokenPromise(f"resurrected: {fact.contents} is on the disk")
            if fact.queue != found[0] or fact.id not in (None, found[1]):
                raise BrokenPromise(f"{fact.contents} is in {found}")
            if fact.id is None:
                self._exists(fact, found[1])
            if any(each.added == "absent" for each in fact.siblings):
                raise BrokenPromise(f"torn batch: {fact.contents} is there")
            fact.removing.clear()
        elif fact.added == "acked":
            if not fact.removed and not fact.removing:
                raise BrokenPromise(f"lost: {fact.contents}")
            fact.removed = True
        elif fact.added == "unknown":
            if any(each.added == "acked" for each in fact.siblings):
                raise BrokenPromise(f"torn batch: {fact.contents} is missing")
            fact.added = "absent"

    @staticmethod
    def _check_lease(lease, leased, now):
        found = [leased.get(item.contents) for item in lease.items if not item.removed]
        if lease.low > now:
            for each in found:
                if each is None or each[0] != lease.id or each[1] < lease.low:
                    raise BrokenPromise(f"a live lease did not survive: {each}, and it lasts until {lease.low}")
        for each in found:
            if each is not None and each[0] == lease.id:
                _, deadline, grace = each
                # A start may let it end later, and the next crash may come before that is durable.
                high = max(lease.high, now + RESTART_GRACE_MS) if grace else lease.high
                if not lease.low <= deadline <= high:
                    raise BrokenPromise(f"a lease ends at {deadline}, not between {lease.low} and {high}")
                lease.low, lease.high = (lease.low, high) if grace else (deadline, deadline)


def held(item):
    """Return whether an item is certainly there."""
    return not item.removed and not item.removing


def new_item(contents, delay):
    """One item of an add."""
    return api.NewItem(contents, SpanMs(delay))
