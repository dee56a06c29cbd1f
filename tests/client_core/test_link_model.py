"""Any sequence of calls, cancellations, answers and lost connections: every call ends once, and no error lies."""

from attrs import define, evolve, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from queueber import api, rpc
from queueber.client_core.calls import PendingState
from queueber.client_core.errors import NotConnected
from queueber.client_core.queue_calls import QueueCalls
from queueber.client_core.reconnect import Link
from queueber.errors import Kind
from queueber.limits import DEFAULTS
from queueber.units import KIB
from tests.support.examples import examples

ROOT = "the server's first object"
LONG = 80 * KIB

MADE_BEFORE_CLOSING = 8
"""A link that is closed early meets nothing else."""

LIMITS = api.write_limits_response(evolve(DEFAULTS, frame_bytes=4 * LONG))


@define(eq=False)
class Made:
    """A call of the program, and what came of it."""

    pending: object
    tag: bytes
    resend: bool
    outcomes: list
    cancelled: bool = False
    seen: int = 0
    """The number of servers that have read the call and have not answered that they did nothing."""


@define(eq=False)
class Server:
    """The other end of one connection."""

    connection: rpc.Connection = field(factory=lambda: rpc.Connection(limits=DEFAULTS, bootstrap=ROOT))
    calls: list = field(factory=list)
    granted: dict = field(factory=dict)
    """The calls that were answered with items, by lease."""


class LinkMachine(RuleBasedStateMachine):
    """A program, a link, and the servers that it was connected to."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.link = Link(limits=None, attempts=3, address=None, retry_policy=lambda _: 1.0, clock=lambda: self.now)
        self.made = []
        self.server = None
        self.leases = 0
        self.returned = set()

    # The program

    def make(self, call, tag):
        outcomes = []
        pending = self.link.call(call, outcomes.append)
        self.made.append(Made(pending, tag, bool(call.resend), outcomes))

    @rule(long=st.booleans(), number=st.booleans(), queue=st.sampled_from([None, "mail"]))
    def add(self, long, number, queue):
        tag = len(self.made).to_bytes(4, "big")
        contents = tag + bytes(LONG if long else 0)
        request_id = tag * 4 if number else b""
        call = QueueCalls(queue, lambda found: found).add_items(api.NewItem(contents, 0), request_id=request_id)
        self.make(call, tag)

    @rule()
    def poll(self):
        tag = len(self.made).to_bytes(4, "big")
        # The lease's span stands for the call.
        self.make(QueueCalls(None, lambda found: found).poll(lease_ms=len(self.made) + 1), tag)

    @precondition(lambda self: any(not each.outcomes and not each.cancelled for each in self.made))
    @rule(which=st.integers(0, 99))
    def cancel(self, which):
        open_calls = [each for each in self.made if not each.outcomes and not each.cancelled]
        chosen = open_calls[which % len(open_calls)]
        withdrawn = self.link.cancel(chosen.pending)
        chosen.cancelled = True
        # A call that a server may have read is not reported as unsent, unless it can only be a poll's wait that ends.
        assert withdrawn.sent or not chosen.seen

    # The network

    @precondition(lambda self: self.server is None and not self.link.closed)
    @rule()
    def connect(self):
        self.server = Server()
        self.link.connected()
        self.link.dispatch()
        self.deliver()

    @precondition(lambda self: self.server is None)
    @rule()
    def fail_to_connect(self):
        self.link.attempt_failed("refused")

    @precondition(lambda self: self.server is not None)
    @rule()
    def lose(self):
        connection, self.server = self.link.connection, None
        connection.end("lost")
        assert self.link.connection is None

    @rule(seconds=st.sampled_from([1, 500]))
    def wait(self, seconds):
        self.now += seconds

    @precondition(lambda self: self.server is not None)
    @rule()
    def deliver(self):
        for event in self.server.connection.receive_data(self.link.connection.data_to_send()):
            if isinstance(event, rpc.Calls):
                self.arrived(event)
            elif isinstance(event, rpc.Finished):
                # A poll that was cancelled leases nothing.
                self.server.calls = [each for each in self.server.calls if each[0].answer != event.answer]
        self.server.connection.check()

    def arrived(self, event):
        connection = self.server.connection
        called = event.interface_id, event.method_id
        if called == (api.BROKER_INTERFACE_ID, api.LIMITS):
            connection.return_results([event.answer], [LIMITS])
        elif event.interface_id == api.BROKER_INTERFACE_ID:
            connection.return_capabilities(event.answer, api.QUEUE_RESPONSE, ("mail",))
        elif called == (api.QUEUE_INTERFACE_ID, api.SETTLE):
            (entry,) = api.read_settle_request(event.params, DEFAULTS).entries
            self.returned.add(entry.lease)
            done = api.write_settle_response(api.SettleResponse([api.Settled(api.Outcome.DONE)]))
            connection.return_results([event.answer], [done])
        else:
            self.server.calls.append((event, self.call_of(event)))

    def call_of(self, event):
        if event.method_id == api.ADD:
            tag = bytes(api.read_add_request(event.params, DEFAULTS).items[0].contents[:4])
        else:
            tag = (api.read_poll_request(event.params).lease - 1).to_bytes(4, "big")
        (made,) = [each for each in self.made if each.tag == tag]
        made.seen += 1
        assert made.seen == 1 or made.resend
        return made

    @precondition(lambda self: self.server is not None)
    @rule(which=st.integers(0, 99), answer=st.sampled_from(["results", "results", "failed", "stopping", "overloaded"]))
    def answer(self, which, answer):
        self.deliver()
        if not self.server.calls:
            return
        event, made = self.server.calls.pop(which % len(self.server.calls))
        kinds = {"failed": Kind.FAILED, "stopping": Kind.DISCONNECTED, "overloaded": Kind.OVERLOADED}
        if answer == "stopping":
            # Nothing was done.
            made.seen -= 1
        if answer in kinds:
            self.server.connection.return_exception(event.answer, kinds[answer], answer)
        elif event.method_id == api.ADD:
            self.server.connection.return_results([event.answer], api.write_add_responses([[bytes(16)]]))
        else:
            self.grant(event, made)

    def grant(self, event, made):
        self.leases += 1
        lease = self.leases.to_bytes(16, "big")
        self.server.granted[lease] = made
        response = api.PollResponse([api.PolledItem(b"x", bytes(16), 1, 1)], lease, 1)
        self.server.connection.return_results([event.answer], api.write_poll_responses([response]))

    @precondition(lambda self: self.server is not None)
    @rule()
    def answer_a_poll_that_is_being_cancelled(self):
        self.deliver()
        for event, made in [each for each in self.server.calls if each[0].method_id == api.POLL][:1]:
            self.server.calls.remove((event, made))
            self.grant(event, made)
            if not made.cancelled:
                self.link.cancel(made.pending)
                made.cancelled = True

    @precondition(lambda self: self.server is not None)
    @rule()
    def receive(self):
        self.link.connection.receive_data(self.server.connection.data_to_send())
        self.deliver()
        for lease, made in self.server.granted.items():
            held = [found.lease for found in made.outcomes if isinstance(found, api.PollResponse)]
            assert lease in held or lease in self.returned, "items that nothing knows of"

    @precondition(lambda self: len(self.made) > MADE_BEFORE_CLOSING)
    @rule()
    def close(self):
        self.link.close()

    # What holds

    @invariant()
    def every_call_ends_once(self):
        for each in self.made:
            assert len(each.outcomes) <= 1
            assert not (each.cancelled and each.outcomes)
            done = each.pending.state is PendingState.DONE
            assert done == bool(each.outcomes or each.cancelled)

    @invariant()
    def no_error_lies(self):
        for each in self.made:
            for outcome in each.outcomes:
                if isinstance(outcome, NotConnected):
                    assert not each.seen

    def teardown(self):
        self.link.close()
        if self.server is not None:
            self.link.connection.end("closed")
        self.every_call_ends_once()
        self.no_error_lies()
        for each in self.made:
            assert each.cancelled or each.outcomes


TestLink = LinkMachine.TestCase
TestLink.settings = settings(max_examples=examples(60), stateful_step_count=50, deadline=None)
