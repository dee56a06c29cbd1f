# ruff: noqa: N802, N815, C901  (the transport's names; a check is a list of what may be wrong)
"""
Clients of the simulated server, and the promises that they check.

Everything here is seen from outside: calls, replies, and a clock.  What was
acknowledged is a fact; what was refused must have done nothing; what got no
reply may have happened, whole or not at all.  `tests/support/queue_model.py`
cannot stand in for these facts, because it has no such doubt.
"""

from math import inf

from attrs import define, field
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from queueber import api, rpc
from queueber.api.control import read_control_response, write_control_request
from queueber.api.control_types import CANCEL, CONTROL_INTERFACE_ID, REDRIVE
from queueber.errors import Kind
from queueber.limits import Limits
from queueber.units import SpanMs
from queueber.values import ControlOutcome
from tests.support.queue_model import BrokenPromise

QUEUES = ("default", "other")
PLACES = (*QUEUES, *(f"dead {queue}" for queue in QUEUES))
"""All objects that calls are made to: the queues and their dead items."""

START_MS = 1_000
"""The longest time from listening to the check of a start."""

CONTROLS = ("purge", "cancel", "redrive", "configure")
"""The kinds of an operator's calls."""

DEDUP_WINDOW_MS = 300_000
"""The default of `dedupWindowMs`."""

SESSION_GRACE_MS = 10_000
SESSION_RESTART_MS = 30_000
"""The least time that a session lease has after a start."""

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

    askers: int = 1
    """The calls that ask for it and were not refused."""

    id: bytes | None = None
    known_at: int = 0
    """When its id became known."""

    attempts: int = 0
    excused: bool = False
    """Whether it was leased at a start since: if that lease ended while the server was down, it counts no attempt."""

    failures: int = 0
    doubted: int = 0
    """Failures that may have been counted."""

    dead: bool = False
    may_die: bool = False
    fresh: bool = False
    """Whether it may have been moved back from the dead items, which counts its attempts anew."""

    not_before: int = 0
    """The moment before which it is not due again."""

    key: bytes = b""
    """The item's deduplication key; empty for none."""

    removed: bool = False
    removed_at: float = inf
    """When that was known."""

    removing: set = field(factory=set)
    """Calls that may have removed it."""

    moving: set = field(factory=set)
    """Settles that may have taken it from its lease and not removed it."""

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
    given: tuple = ()
    """All items that its poll was given."""

    session: "SessionFact | None" = None
    """The session that keeps it: without a deadline while that is attached."""

    left: list = field(factory=list)
    """Items that came from there before the reply of the settle that took them from it."""

    doubtful: list = field(factory=list)
    """Items that a settle without a reply may have taken from it."""


@define(eq=False)
class SessionFact:
    """The facts that are known about one session."""

    id: bytes
    client: "Client | None" = None
    """The connection that has attached it last, while that lasts."""

    leases: list = field(factory=list)


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

    entries: tuple = ()
    """For a settle: lease, item, action, delay, and whether it had to be done when the call was made."""

    session: SessionFact | None = None
    conditional: bool = False
    again: bool = False
    """Whether it repeats an earlier add."""


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
    controls: dict = field(factory=dict)
    """The control of each queue, as a target of calls."""

    superseded: bool = False
    """Whether the server must close it, because its session is attached elsewhere."""

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
        for name in QUEUES:
            asked = api.write_dead_letters_request()
            dead = self.connection.call(self.targets[name], api.QUEUE_INTERFACE_ID, api.DEAD_LETTERS, asked)
            self.targets[f"dead {name}"] = rpc.PromisedAnswer(dead, (0,))
            self.named[dead] = f"dead {name}", api.read_queue_response
            asked = api.write_queue_request(name)
            control = self.connection.call(root, api.BROKER_INTERFACE_ID, api.CONTROL, asked)
            self.controls[name] = rpc.PromisedAnswer(control, (0,))
        self.protocol.dataReceived(self.connection.data_to_send())

    def ask(self, *calls):
        """Make *calls*, each a method, its parameters and the facts about it, in one write."""
        for method, content, call in calls:
            question = self.connection.call(self.targets[call.queue], api.QUEUE_INTERFACE_ID, method, content)
            self.calls[question] = call
        self.protocol.dataReceived(self.connection.data_to_send())

    def attach(self, session):
        """Attach *session* to this connection."""
        if session.client is not None and session.client is not self:
            session.client.superseded = True
        content = api.write_attach_request(api.AttachRequest(session.id, SpanMs(SESSION_GRACE_MS)))
        again = session.client is self
        question = self.connection.call(self.targets["default"], api.BROKER_INTERFACE_ID, api.ATTACH, content)
        self.calls[question] = Call("attach", self.facts.now(), "default", session=session, again=again)
        session.client = self
        self.protocol.dataReceived(self.connection.data_to_send())

    def ping(self):
        """Show that this connection is alive."""
        content = api.write_ping_request()
        question = self.connection.call(self.targets["default"], api.BROKER_INTERFACE_ID, api.PING, content)
        self.calls[question] = Call("ping", self.facts.now(), "default")
        self.protocol.dataReceived(self.connection.data_to_send())

    def operate(self, call, method, request):
        """Make an operator's call."""
        content = write_control_request(method, request)
        question = self.connection.call(self.controls[call.queue], CONTROL_INTERFACE_ID, method, content)
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
            if isinstance(event, rpc.Aborted) and self.superseded:
                self.transport.gone = True
                return
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
        self.facts.detached(self)
        self.forget()

    def forget(self):
        for call in self.calls.values():
            self.facts.unknown(call)
        self.calls.clear()
        for session in self.facts.sessions:
            if session.client is self:
                session.client = None


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

    keys: dict = field(factory=dict)
    """Items that were added with a key, by their queue and key."""

    sessions: list = field(factory=list)
    crashed_at: int = 0
    """Queue time at the end of the last server."""

    hand_offs: list = field(factory=list)
    """Settles with adds that had no reply: the items that they add, and those that they remove."""

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
        held = item in (*lease.items, *lease.doubtful) and queue == lease.queue and not item.removed
        certain = held and item in lease.items and not item.removing and lease.low > now
        call = Call("remove", now, queue, (lease, item), certain=certain)
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

    def settling(self, queue, entries, adds, *, all_or_nothing):
        """Make a settle; each of *entries* is a lease, an item, an action and a delay."""
        now, noted = self.now(), []
        call = Call("settle", now, queue, tuple(adds), conditional=bool(adds) or all_or_nothing)
        scope = None if queue == "default" else queue
        for lease, item, action, delay in entries:
            there = item in (*lease.items, *lease.doubtful) and scope in (None, lease.queue)
            certain = (
                there
                and item in lease.items
                and held(item)
                and lease.low > now
                and all(each[1] is not item for each in noted)
            )
            noted.append((lease, item, action, delay, certain))
            if there and not item.removed:
                (item.removing if action is api.Action.REMOVE else item.moving).add(call)
        call.entries = tuple(noted)
        return call

    def purging(self, queue):
        """Note a purge: what is certainly leased stays, and the rest may be gone."""
        call = Call("purge", self.now(), queue)
        for item in self.items.values():
            if item.queue == queue and not (item.leases and self._is_held(item)):
                item.removing.add(call)
                # Others of its add may be leased, and stay.
                item.siblings = [item]
        self.hand_offs = [each for each in self.hand_offs if all(item.queue != queue for item in each[1])]
        return call

    def cancelling(self, item):
        """Note the cancel of an item."""
        call = Call("cancel", self.now(), item.queue, (item,), certain=self._is_held(item))
        if not call.certain and not item.removed:
            item.removing.add(call)
        return call

    def redriving(self, queue):
        """Note that dead items may be moved back."""
        for item in self.items.values():
            if item.queue == queue and (item.dead or item.may_die or item.moving) and not self._is_held(item):
                item.may_die = item.fresh = True
        return Call("redrive", self.now(), queue)

    def _is_held(self, item):
        """Return whether an item is certainly under a lease."""
        now = self.now()
        return held(item) and any(lease.low > now and item in lease.items for lease in item.leases)

    def detached(self, client):
        """Note that the server has seen the end of a connection."""
        end = self.now() + SESSION_GRACE_MS
        # An attach without a reply may not have been read.
        unread = {call.session for call in client.calls.values() if call.kind == "attach" and not call.again}
        for session in self.sessions:
            if session.client is client:
                for lease in session.leases:
                    lease.low, lease.high = (min(lease.low, end), inf) if session in unread else (end, end)

    # Replies

    def _attach(self, call, outcome):
        session, known = call.session, {lease.id: lease for lease in call.session.leases}
        listed = api.read_attach_response(outcome).leases
        if call.again and listed:
            raise BrokenPromise("a session that is attached again lists its leases")
        for each in listed:
            lease = known.pop(bytes(each.lease), None)
            if lease is None:
                if each.lease in self.leases:
                    raise BrokenPromise("a session has another's lease")
                # No reply has shown it.
                items = [self.ids[bytes(number)] for number in each.ids if bytes(number) in self.ids]
                lease = self._lease(bytes(each.lease), each.queue, inf, items, session)
            elif lease.high <= call.invoked:
                raise BrokenPromise(f"a session lease that ended at {lease.high} is there at {call.invoked}")
            gone = [self.ids[bytes(number)] for number in each.ids if bytes(number) in self.ids]
            if any(item.removed and item.removed_at < call.invoked for item in gone):
                raise BrokenPromise("a session has an item that was removed")
            if session.client is not None:
                lease.low = lease.high = inf
        for lease in known.values() if not call.again else ():
            if lease.low > self.now() and any(held(item) for item in lease.items):
                raise BrokenPromise(f"a session has lost a lease that lasts until {lease.low}")
        session.leases = [each for each in session.leases if each.id not in known or call.again]
        self.count("attached")
        self.counts["leases kept"] = self.counts.get("leases kept", 0) + len(listed)

    def _ping(self, call, outcome):
        self.count("pinged")

    def _purge(self, call, outcome):
        self.count("purged")

    def _configure(self, call, outcome):
        self.count("configured")

    def _redrive(self, call, outcome):
        redriven = read_control_response(REDRIVE, outcome)
        self.counts["redriven"] = self.counts.get("redriven", 0) + redriven.moved

    def _cancel(self, call, outcome):
        (item,) = call.facts
        item.removing.discard(call)
        if read_control_response(CANCEL, outcome) is ControlOutcome.DONE:
            if call.certain or item.removed:
                raise BrokenPromise(f"{item.contents} was cancelled, and was leased or gone")
            item.removed, item.removed_at = True, self.now()
            self.count("cancelled")

    def _lease(self, number, queue, end, items, session=None):
        lease = LeaseFact(number, queue, end, end, list(items), given=tuple(items), session=session)
        self.leases[number] = lease
        for item in items:
            item.leases.append(lease)
        if session is not None:
            session.leases.append(lease)
        return lease

    def returned(self, call, outcome):
        if isinstance(outcome, rpc.Results):
            getattr(self, f"_{call.kind}")(call, outcome)
        elif isinstance(outcome, rpc.RemoteException):
            self._refused(call, outcome)
        else:
            self.count("canceled")

    def _refused(self, call, why):
        busy = {Kind.OVERLOADED, Kind.DISCONNECTED}
        allowed = {
            "attach": set(),
            "ping": set(),
            "add": set(busy),
            "poll": set(busy),
            "settle": set(busy) if call.facts or self.disturbed else set(),
        }
        if call.kind in CONTROLS:
            allowed[call.kind] = set(busy)
        if call.kind in ("poll", "settle", *CONTROLS) and self.disturbed:
            allowed[call.kind].add(Kind.FAILED)
        if why.kind not in allowed.get(call.kind, ()):
            raise BrokenPromise(f"{call.kind} was refused: {why.reason}")
        self.count(f"refused {call.kind}")
        if call.kind in CONTROLS:
            return
        for fact in call.facts:
            # An add that was sent twice may be refused once and carried out once.
            fact.askers -= 1
            if not fact.askers:
                fact.added = "refused"
        self._resolve(call)

    def _resolve(self, call):
        """Note that *call* is not under way any more."""
        for _, item, *_ in call.entries:
            item.removing.discard(call)
            item.moving.discard(call)

    def _add(self, call, outcome):
        response = api.read_add_response(outcome)
        ids = [bytes(each) for each in response.ids]
        if len(ids) != len(call.facts):
            raise BrokenPromise("an add was answered with another number of ids")
        for place in response.duplicates:
            self._duplicate(call.facts[place], ids[place])
        self._added(
            [
                (fact, each)
                for place, (fact, each) in enumerate(zip(call.facts, ids, strict=True))
                if place not in response.duplicates
            ]
        )

    def _duplicate(self, fact, item_id):
        """Note that *fact* was not added, because there is an item with its key."""
        others = [each for each in self.keys[fact.queue, fact.key] if each is not fact]
        known = self.ids.get(item_id)
        if known not in others and not any(each.id is None for each in others):
            raise BrokenPromise(f"{fact.contents} is a duplicate of {known}")
        fact.added = "refused"
        self.count("duplicates")

    def _added(self, pairs):
        ids = [item_id for _, item_id in pairs]
        if ids != sorted(ids) or any(len(each) != 16 for each in ids):
            raise BrokenPromise("the ids of an add are out of order")
        for fact, item_id in pairs:
            for each in self.keys.get((fact.queue, fact.key), ()) if fact.key else ():
                recent = each.invoked + DEDUP_WINDOW_MS > self.now() and each.known_at < fact.invoked
                if each is not fact and recent and each.added == "acked":
                    raise BrokenPromise(f"{fact.contents} and {each.contents} have the key {fact.key}")
            if fact.id is None:
                self._exists(fact, item_id)
            elif fact.id != item_id:
                raise BrokenPromise(f"{fact.contents} has two ids")
        self.count("added")

    def _exists(self, fact, item_id):
        if self.ids.setdefault(item_id, fact) is not fact:
            raise BrokenPromise(f"two items have the id {item_id.hex()}")
        fact.id, fact.added, fact.known_at = item_id, "acked", self.now()

    def _poll(self, call, outcome):
        response = api.read_poll_response(outcome)
        if not response.items:
            if call.wait is None or self.now() < call.invoked + call.wait:
                raise BrokenPromise(f"a poll that waits for {call.wait} ms was answered with nothing too early")
            self.count("empty")
            return
        decided = self.now() if call.session else response.deadline - call.span - 1
        if bool(call.session) != response.session or (call.session and response.deadline):
            raise BrokenPromise("a session lease is none, or another lease is one")
        if not call.invoked <= decided <= self.now():
            raise BrokenPromise(
                f"a lease of {call.span} ms ends at {response.deadline}; asked at {call.invoked}, {self.now()}"
            )
        lease_id = bytes(response.lease)
        if lease_id in self.leases:
            raise BrokenPromise("two polls have the same lease")
        more = [*response.facts, *[api.DeliveryFacts()] * (len(response.items) - len(response.facts))]
        facts = [self._delivered(call, *each, decided) for each in zip(response.items, more, strict=True)]
        self._lease(lease_id, call.queue, inf if call.session else response.deadline, facts, call.session)
        self.count("delivered")

    def _delivered(self, call, item, more, decided):
        contents = bytes(item.contents)
        fact = self.items.get(contents)
        if fact is None or fact.added in ("refused", "absent") or fact.queue not in call.queue:
            raise BrokenPromise(f"unexpected: {contents} in {call.queue} is {fact}")
        self._check_life(fact, more, dead=call.queue != fact.queue)
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
        if decided < fact.not_before:
            raise BrokenPromise(f"early: {contents} at {decided}, and it was put off until {fact.not_before}")
        uncounted = fact.excused or fact.dead or bool(fact.moving)
        if not fact.fresh and item.attempt <= fact.attempts - uncounted:
            raise BrokenPromise(f"attempt {item.attempt} of {contents} after {fact.attempts}")
        for lease in fact.leases:
            if lease.low > decided and not fact.moving:
                raise BrokenPromise(f"double-held: {contents} at {decided} under a lease until {lease.low}")
        for lease in list(fact.leases) if fact.moving else ():
            # A settle whose reply is on its way took it from there.
            lease.left.append(fact)
            lease.items.remove(fact)
            fact.leases.remove(lease)
        fact.removing.clear()
        fact.moving.clear()
        fact.attempts, fact.excused, fact.not_before = item.attempt, False, 0
        fact.failures, fact.doubted, fact.may_die, fact.fresh = more.failures, 0, False, False
        return fact

    def _check_life(self, fact, more, *, dead):
        """Check that the item is alive or dead as it must be, and has the failures that were acknowledged."""
        if dead != fact.dead and not fact.may_die and not fact.moving:
            raise BrokenPromise(f"{fact.contents} is {'dead' if dead else 'alive'}, and should not be")
        fact.dead = dead
        if dead and more.death is None:
            raise BrokenPromise(f"{fact.contents} died of nothing")
        most = fact.failures + fact.doubted + len(fact.moving)
        if not (0 if fact.fresh else fact.failures) <= more.failures <= most:
            raise BrokenPromise(f"{fact.contents} has {more.failures} failures, not {fact.failures} to {most}")

    def _settle(self, call, outcome):
        response = api.read_settle_response(outcome)
        results = [each.outcome for each in response.settled]
        refused = call.conditional and any(each is not api.Outcome.DONE for each in results)
        self._resolve(call)
        if refused and (response.changed or response.added):
            raise BrokenPromise("a settle that was refused has changed something")
        for entry, settled in zip(call.entries, response.settled, strict=True):
            if settled.outcome is api.Outcome.DONE:
                self._settled(call, entry, settled, refused=refused)
            elif entry[-1] and entry[0].low > self.now() and held(entry[1]) and entry[1] in entry[0].items:
                raise BrokenPromise(f"a live lease could not be settled: {entry}")
        if refused:
            for fact in call.facts:
                fact.added = "refused"
            self.count("settles refused")
        elif call.facts:
            self._added(list(zip(call.facts, [bytes(each) for each in response.added[0].ids], strict=True)))
            self.count("handed off")

    def _settled(self, call, entry, settled, *, refused):
        lease, item, action, delay, _ = entry
        scope = None if call.queue == "default" else call.queue
        if item not in (*lease.items, *lease.doubtful, *lease.left) or scope not in (None, lease.queue):
            raise BrokenPromise(f"a foreign lease settled {item.contents}")
        if lease.high <= call.invoked and not lease.extending:
            raise BrokenPromise(f"a stale lease settled {item.contents}")
        if refused:
            return
        self.count("settled")
        if action is api.Action.REMOVE:
            if item.removed:
                raise BrokenPromise(f"double-removed: {item.contents}")
            item.removed, item.removed_at = True, self.now()
            return
        if settled.died != (action is api.Action.REJECT and not lease.queue.startswith("dead")):
            raise BrokenPromise(f"{action.name} of {item.contents}: it died: {settled.died}")
        if item in (*lease.items, *lease.doubtful):
            self._doubt(lease, item)
            lease.doubtful.remove(item)
            item.dead = item.dead or settled.died
            item.excused = item.excused or action is api.Action.DEFER
            item.failures += action in (api.Action.FAIL, api.Action.REJECT) and not lease.queue.startswith("dead")
            if delay is not None and not settled.died:
                item.not_before = call.invoked + delay

    @staticmethod
    def _doubt(lease, item):
        """Note that *item* may have left *lease*."""
        if item in lease.items:
            lease.items.remove(item)
            lease.doubtful.append(item)
            item.leases.remove(lease)

    def _may_have_settled(self, call):
        """Note that a settle without a reply may have been done: of its entries for one item, at most one."""
        scope, failing = None if call.queue == "default" else call.queue, set()
        moved = [each for each in call.entries if each[2] is not api.Action.REMOVE and call in each[1].moving]
        for lease, item, action, *_ in moved:
            there = item in (*lease.items, *lease.doubtful) and scope in (None, lease.queue)
            self._doubt(lease, item)
            if not there or (lease.high <= call.invoked and not lease.extending):
                continue
            item.excused = True
            item.may_die = item.may_die or action is api.Action.REJECT
            if action in (api.Action.FAIL, api.Action.REJECT):
                failing.add(item)
        for item in failing:
            item.doubted += 1
        # Not before: the entries may name an item twice, under its last lease and under an earlier one.
        for _, item, *_ in call.entries:
            item.moving.discard(call)
        if call.facts and call.kind == "settle":
            removes = [item for _, item, action, *_ in call.entries if action is api.Action.REMOVE]
            self.hand_offs.append((call, call.facts, removes))

    def _remove(self, call, outcome):
        lease, item = call.facts
        item.removing.discard(call)
        if api.read_remove_response(outcome):
            if item.removed:
                raise BrokenPromise(f"double-removed: {item.contents}")
            # Of an extend that has taken effect its peer may hear later than another peer hears of this.
            ended = lease.high <= call.invoked and not lease.extending
            if item not in (*lease.items, *lease.doubtful) or call.queue != lease.queue or ended:
                raise BrokenPromise(f"a stale or foreign lease removed {item.contents}")
            item.removed, item.removed_at = True, self.now()
            self.count("removed")
            return
        if call.certain and lease.low > self.now() and held(item) and item in lease.items:
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
        if call.kind in ("add", "settle"):
            for fact in call.facts:
                if fact.added == "asked":
                    fact.added = "unknown"
            self._may_have_settled(call)
        elif call.kind == "extend":
            (lease,) = call.facts
            lease.high = max(lease.high, self.now() + call.span + 1)

    # After a crash

    def check(self, rows):
        """Check that *rows*, which a server has found at its start, have everything that was promised."""
        names = {number: f"{'dead ' * bool(record.dead_of)}{record.name}" for number, record in rows.queues.items()}
        queues = {record.id: names[number] for number, record in rows.queues.items()}
        names |= {number: queues[queue] for number, queue in rows.retired.items()}
        there = {
            item.contents: (names[number], key.id)
            for (number, key), item in rows.items.items()
            if number not in rows.retired or rows.holder(number, key) is not None
        }
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
        self._check_hand_offs(there)
        for fact in self.items.values():
            self._check_item(fact, there.get(fact.contents))
        now = self.now()
        for lease in self.leases.values():
            lease.extending = False
            for item in lease.doubtful:
                if leased.get(item.contents, ("",))[0] == lease.id:
                    lease.items.append(item)
                    item.leases.append(lease)
            lease.doubtful = []
            self._check_lease(lease, leased, now)

    def _check_hand_offs(self, there):
        """Check that settles with adds, which had no reply, were done wholly or not at all."""
        for call, added, removes in self.hand_offs:
            present = {fact.contents in there for fact in added}
            gone = {item.contents not in there for item in removes if item.removing == {call} and not item.removed}
            if len(present) > 1 or not gone <= present:
                raise BrokenPromise(f"a hand-off was torn: {added} are there: {present}; {removes} are gone: {gone}")
        self.hand_offs.clear()

    def _check_item(self, fact, found):
        if found is not None:
            if fact.added in ("refused", "absent"):
                raise BrokenPromise(f"{fact.contents} is there, and was {fact.added}")
            if fact.removed:
                raise BrokenPromise(f"resurrected: {fact.contents} is on the disk")
            dead = found[0] != fact.queue
            if fact.queue not in found[0] or fact.id not in (None, found[1]):
                raise BrokenPromise(f"{fact.contents} is in {found}")
            if dead != fact.dead and not fact.may_die:
                raise BrokenPromise(f"{fact.contents} is in {found}, dead: {fact.dead}")
            fact.dead, fact.may_die = dead, False
            if fact.id is None:
                self._exists(fact, found[1])
            if any(each.added == "absent" for each in fact.siblings):
                raise BrokenPromise(f"torn batch: {fact.contents} is there")
            fact.removing.clear()
            fact.moving.clear()
        elif fact.added == "acked":
            if not fact.removed and not fact.removing:
                raise BrokenPromise(f"lost: {fact.contents}")
            fact.removed = True
        elif fact.added == "unknown":
            if any(each.added == "acked" for each in fact.siblings):
                raise BrokenPromise(f"torn batch: {fact.contents} is missing")
            fact.added = "absent"

    def _check_session_lease(self, lease, leased, now):
        """Check that a session lease that was alive is there, and lasts until its worker has had time to attach."""
        found = [leased.get(item.contents) for item in lease.items if not item.removed]
        there = [each for each in found if each is not None and each[0] == lease.id]
        if lease.low > self.crashed_at and len(there) < len(found):
            raise BrokenPromise(f"a session lease did not survive: {found}, and it lasted until {lease.low}")
        for _, deadline, _ in there:
            if deadline < now + SESSION_RESTART_MS - START_MS:
                raise BrokenPromise(f"a session lease ends at {deadline}, too soon after {now}")
            lease.low = lease.high = deadline
        if not there:
            # It is over.  Queue time may be less than it was.
            lease.low = lease.high = 0

    def _check_lease(self, lease, leased, now):
        if lease.session is not None:
            self._check_session_lease(lease, leased, now)
            return
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
    """Return whether an item is certainly there, and under the lease that it had."""
    return not item.removed and not item.removing and not item.moving


def new_item(contents, delay, key=b""):
    """One item of an add."""
    return api.NewItem(contents, SpanMs(delay), api.ItemOptions(dedup_key=key) if key else None)
