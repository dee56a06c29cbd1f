"""
The methods that settle leases and that concern dead items.

A settle of removes and extends is decided when it arrives, as a remove is.  The
others need the rows of the items that they move.  One pool job at a time reads
for those that have arrived, up to some bytes of contents, so that no number of
settles keeps a commit waiting for a thread; then they are decided in the order
of their arrival.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias

from attrs import define, field
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber import api, rpc
from queueber.broker import Broker, Item, ItemId, Key, Queue, Store
from queueber.broker.adds import Adding
from queueber.broker.model import QueueNumber
from queueber.broker.settle import SettleReply
from queueber.errors import QueueberError
from queueber.limits import Limits
from queueber.server.core.clock import QueueClock
from queueber.server.core.committer import Committer
from queueber.server.core.read_failures import ReadFailures, unreadable
from queueber.server.core.reads import Reads
from queueber.server.core.replies import Methods, Replies, ReplySink

METHOD_NAME = "settle"

READ_ROWS: Final = 100
"""Rows that are read between two looks at whether the server stops."""

_Rows: TypeAlias = Mapping[ItemId, Item] | Failure
"""The rows that were read for a settle, or why they could not be."""


@define(eq=False)
class _Settle:
    """A settle that was admitted."""

    sink: ReplySink
    answer: rpc.AnswerId
    queue: Queue | None
    """The queue whose leases it may settle; None for all."""

    request: api.SettleRequest
    adds: Sequence[Adding]
    keys: Mapping[QueueNumber, Sequence[Key]]
    """The rows that it needs."""

    size: int
    """The bytes that count in `request_bytes`, and in `pending_bytes` while it waits for its rows."""

    began: float


@define(eq=False)
class SettleHandlers:
    """Carries settles to the broker and replies back."""

    _broker: Broker
    _committer: Committer
    _store: Store
    _reads: Reads
    _clock: QueueClock
    _limits: Limits
    _replies: Replies
    _refuse_adds: Callable[[int], None]
    """Called with the length of adds; raises `Overloaded` if the disk has no room for them."""

    methods: Methods = field(init=False)
    _waiting: deque[_Settle] = field(factory=deque, init=False)
    """Settles whose rows are not being read yet."""

    _reading: bool = field(default=False, init=False)
    _failures: ReadFailures = field(init=False)
    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Bind the methods to their numbers, and bound the log."""
        self.methods = {
            (api.QUEUE_INTERFACE_ID, api.SETTLE): self._settle,
            (api.QUEUE_INTERFACE_ID, api.DEAD_LETTERS): self._dead_letters,
        }
        self._failures = ReadFailures(self.log, self._clock.monotonic)

    def _dead_letters(self, sink: ReplySink, queue: Queue, calls: rpc.Calls) -> None:
        sink.capabilities(calls.answer, api.DEAD_LETTERS_RESPONSE, (self._broker.dead_letters.of(queue),))

    def _settle(self, sink: ReplySink, queue: Queue, calls: rpc.Calls) -> None:
        self._committer.require_room()
        began, (size,) = self._clock.monotonic(), calls.sizes
        request = api.read_settle_request(calls.params, self._limits)
        adds = [(self._broker.queue(name) if name else queue, items) for name, items in request.adds]
        if adds:
            self._refuse_adds(size)
            self._committer.require_room(adding=True)
        # Called on the object that a connection bootstraps, it concerns all queues.
        scope = queue if calls.target is queue else None
        keys, written = self._broker.settles.rows_of(scope, request.entries, self._clock.now())
        size += written
        self._replies.charge(sink.peer, size)
        settle = _Settle(sink, calls.answer, scope, request, adds, keys, size, began)
        if not keys:
            self._decide(settle, {})
            return
        self._committer.reserve(size)
        self._waiting.append(settle)
        if not self._reading:
            self._read_next()

    def _read_next(self) -> None:
        """Read the rows of settles that wait, if there are any."""
        settles: list[_Settle] = []
        size = 0
        while self._waiting and size < self._limits.refill_bytes:
            settles.append(self._waiting.popleft())
            size += settles[-1].size
        self._reading = bool(settles)
        if settles:
            read = self._reads.run(self._read, [settle.keys for settle in settles])
            read.addCallback(self._decide_all, settles)
            read.addErrback(self._committer.bug)

    def _read(self, wanted: Sequence[Mapping[QueueNumber, Sequence[Key]]]) -> list[_Rows]:
        """On a storage thread: read the rows of several settles, or some of them once `Reads` is stopped."""
        return [self._read_one(keys) for keys in wanted]

    def _read_one(self, keys: Mapping[QueueNumber, Sequence[Key]]) -> _Rows:
        rows: dict[ItemId, Item] = {}
        try:
            for number, of_number in keys.items():
                for begin in range(0, len(of_number), READ_ROWS):
                    if self._reads.stopped:
                        return rows
                    items = self._store.read(number, of_number[begin : begin + READ_ROWS])
                    rows.update((item.key.id, item) for item in items if item is not None)
        except Exception:  # noqa: BLE001  (whatever it is, it refuses this settle alone)
            return Failure()
        return rows

    def _decide_all(self, read: list[_Rows], settles: list[_Settle]) -> None:
        self._committer.decide_now()
        for settle, rows in zip(settles, read, strict=True):
            self._committer.release(settle.size)
            if isinstance(rows, Failure):
                self._refuse_unreadable(settle, rows)
            else:
                self._decide(settle, rows)
        # Replies that waited for no commit are sent at the end of a cut.
        self._committer.wake()
        self._read_next()

    def _decide(self, settle: _Settle, rows: Mapping[ItemId, Item]) -> None:
        request = settle.request
        try:
            plan = self._broker.settles.settle(
                settle.queue,
                request.entries,
                settle.adds,
                rows,
                self._clock.now(),
                all_or_nothing=request.all_or_nothing,
            )
        except Exception as why:
            self._committer.bug(why)
            raise
        self._committer.submit(plan, partial(self._reply, settle))

    def _reply(self, settle: _Settle, reply: SettleReply | QueueberError) -> None:
        """Return *reply*, which is durable."""
        self._replies.release(settle.sink.peer, settle.size)
        if isinstance(reply, QueueberError):
            self._replies.refuse(settle.sink, settle.answer, reply, METHOD_NAME)
            return
        added = [api.AddResponse(ids) for ids in reply.added]
        response = api.SettleResponse(reply.settled, added, reply.changed)
        self._replies.stats.seconds[METHOD_NAME].observe(self._clock.monotonic() - settle.began)
        settle.sink.results([settle.answer], [api.write_settle_response(response)])

    def _refuse_unreadable(self, settle: _Settle, why: Failure) -> None:
        """Refuse a settle whose rows cannot be read.  Its leases go on, and it may be tried again."""
        self._replies.release(settle.sink.peer, settle.size)
        self._failures.note("Reading the rows of a settle failed", why, settle.sink.peer)
        self._replies.refuse(settle.sink, settle.answer, unreadable("items", why), METHOD_NAME)
