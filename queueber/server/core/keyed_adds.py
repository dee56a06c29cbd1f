"""
Adds with options or request ids.

Those that may have records of deduplication are decided when these have been read; the others at once.
"""

from collections.abc import Callable, Sequence
from functools import partial

from attrs import define, field, frozen
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber import api, rpc
from queueber.broker import Broker, Queue, Store
from queueber.broker.dedup import UNTIL_REMOVED, AddedOnce, KeyedAdd
from queueber.broker.model import NO_QUEUE
from queueber.errors import QueueberError, StorageError
from queueber.server.core.clock import QueueClock
from queueber.server.core.committer import Committer
from queueber.server.core.dispatcher import Dispatcher
from queueber.server.core.lookups import find_each
from queueber.server.core.pool import Pool
from queueber.server.core.read_failures import ReadFailures, UnreadableNow
from queueber.server.core.replies import Replies, ReplySink

_METHOD = "add"


@frozen(eq=False)
class _Call:
    """An add that was admitted."""

    keyed: KeyedAdd
    sink: ReplySink
    answer: rpc.AnswerId
    size: int
    """The add's part of `request_bytes`, and of `pending_bytes` while its records are being read, bytes."""

    began: float


@define(eq=False)
class KeyedAdds:
    """
    Adds items once.

    Calls that arrive while others are read wait, and are read together.
    """

    _broker: Broker
    _store: Store
    _pool: Pool
    _clock: QueueClock
    _committer: Committer
    _dispatcher: Dispatcher
    _replies: Replies
    _flush_replies: Callable[[], None]
    _waiting: list[_Call] = field(factory=list, init=False)
    _reading: bool = field(default=False, init=False)
    _failures: ReadFailures = field(init=False)
    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Bound the log."""
        self._failures = ReadFailures(self.log, self._clock.monotonic)

    def add(self, sink: ReplySink, queue: Queue, answer: rpc.AnswerId, request: api.AddRequest, size: int) -> None:
        """Carry out an add, which counts *size* in the connection's `request_bytes`."""
        keyed = self._broker.dedup.begin(queue, request.items, request.request_id)
        call = _Call(keyed, sink, answer, size, self._clock.monotonic())
        # An add does not overtake those that came before it.
        if not self._reading and not self._broker.dedup.may_have_records(keyed, self._clock.now()):
            try:
                self._decide(call)
            except Exception as why:
                self._committer.bug(why)
                raise
            return
        self._committer.reserve(size)
        self._waiting.append(call)
        if not self._reading:
            self._read()

    def _read(self) -> None:
        calls, self._waiting = self._waiting, []
        self._reading = True
        read = self._pool.run(read_records, self._store, [call.keyed for call in calls])
        read.addCallbacks(self._decide_read, self._fail, callbackArgs=(calls,), errbackArgs=(calls,))
        read.addErrback(self._committer.bug)

    def _decide_read(self, _: None, calls: Sequence[_Call]) -> None:
        for call in calls:
            self._committer.release(call.size)
            self._decide(call)
        self._read_next()

    def _decide(self, call: _Call) -> None:
        if call.keyed.queue.timed_out:
            # Polls that wait no longer get none of the items that are added after them.
            self._dispatcher.serve_no_wait(call.keyed.queue)
        plan = self._broker.dedup.decide(call.keyed, self._clock.now())
        self._committer.submit(plan, partial(self._reply, call))

    def _fail(self, failure: Failure, calls: Sequence[_Call]) -> None:
        if failure.check(StorageError, MemoryError) is None:
            failure.raiseException()
        for call in calls:
            self._committer.release(call.size)
            self._broker.dedup.cancel(call.keyed)
            name = call.keyed.queue.name
            line = "Reading the deduplication records of queue {queue!r} failed"
            self._failures.note(line, failure, name, queue=name)
            # The engine's text names files and keys, which a peer must not see.
            why = "the records of this add's keys cannot be read at the moment; the server's log says why"
            self._reply(call, UnreadableNow(why))
        self._read_next()

    def _read_next(self) -> None:
        # Replies that wait for no commit were returned above.
        self._flush_replies()
        self._reading = False
        if self._waiting:
            self._read()

    def _reply(self, call: _Call, reply: AddedOnce | QueueberError) -> None:
        self._replies.release(call.sink.peer, call.size)
        if isinstance(reply, QueueberError):
            self._replies.refuse(call.sink, call.answer, reply, _METHOD)
            return
        self._replies.stats.seconds[_METHOD].observe(self._clock.monotonic() - call.began)
        content = api.write_add_response(api.AddResponse(reply.ids, reply.duplicates))
        call.sink.results([call.answer], [content])


def read_records(store: Store, adds: Sequence[KeyedAdd]) -> None:
    """Read the records of *adds*, and look for the items of those without an end."""
    requests = [add.request_id for add in adds if add.request_id is not None]
    found = dict(zip(requests, store.requests(requests), strict=True)) if requests else {}
    for add in adds:
        if add.request_id is not None:
            add.add_records({(NO_QUEUE, add.request_id): found[add.request_id]})
        digests = list({digest for digest in add.digests if digest is not None})
        if add.queue_id is None or not digests:
            continue
        records = store.dedup(add.queue_id, digests)
        add.add_records({(add.queue_id, digest): record for digest, record in zip(digests, records, strict=True)})
        items = [record.ids[0] for record in records if record is not None and record.ends == UNTIL_REMOVED]
        if items and add.number is not None:
            add.add_existing(find_each(store, add.number, items))
