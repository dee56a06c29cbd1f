"""Redrives of dead items: one at a time, so that the pool's threads stay free for commits."""

from collections import deque
from functools import partial

from attrs import define, field
from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber import rpc
from queueber.api import control_types
from queueber.api.control import read_control_request, write_control_response
from queueber.broker import Broker, ItemId, Plan, Queue, Store
from queueber.broker.dead_letters import Redrive, RedriveReply
from queueber.errors import QueueberError, StorageError
from queueber.limits import Limits
from queueber.server.core.clock import QueueClock
from queueber.server.core.committer import Committer
from queueber.server.core.lookups import LOOKUPS_MAX
from queueber.server.core.pool import Pool
from queueber.server.core.read_failures import UnreadableNow
from queueber.server.core.replies import Replies, ReplySink

_NAME = "redrive"


@define(eq=False)
class _Waiting:
    """A redrive that has not begun."""

    sink: ReplySink
    answer: rpc.AnswerId
    size: int
    """The bytes that count in `request_bytes`."""

    queue: Queue
    to: Queue
    request: control_types.RedriveRequest


@define(eq=False)
class Redrives:
    """Carries redrives to the broker and replies back."""

    _broker: Broker
    _committer: Committer
    _store: Store
    _pool: Pool
    _clock: QueueClock
    _limits: Limits
    _replies: Replies
    _waiting: deque[_Waiting] = field(factory=deque, init=False)
    _running: bool = field(default=False, init=False)
    log = Logger()

    def redrive(self, sink: ReplySink, queue: Queue, calls: rpc.Calls) -> None:
        """Move dead items of *queue*, as the request says."""
        self._committer.require_room()
        assert calls.encoded
        request: control_types.RedriveRequest = read_control_request(control_types.REDRIVE, calls.params)
        to = self._broker.queue(request.to) if request.to else queue
        (size,) = calls.sizes
        self._replies.charge(sink.peer, size)
        self._waiting.append(_Waiting(sink, calls.answer, size, queue, to, request))
        if not self._running:
            self._running = True
            ensureDeferred(self._run()).addErrback(self._committer.bug)

    async def _run(self) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            ids = [ItemId(each) for each in waiting.request.ids]
            search = self._broker.dead_letters.begin(
                waiting.queue, waiting.to, ids, waiting.request.reason, waiting.request.limit
            )
            reply = partial(self._reply, waiting)
            if search is None:
                self._committer.submit(Plan([], (), RedriveReply(0, more=False)), reply)
                continue
            # Items of a redrive count while they are read, whether there are that many or not.
            self._committer.reserve(self._limits.add_bytes)
            try:
                await self._read(search)
            except (StorageError, MemoryError):
                self._broker.dead_letters.end(search)
                self.log.failure("Reading the dead items of queue {queue!r} failed", Failure(), queue=search.dead.name)
                reply(UnreadableNow("dead items cannot be read at the moment; the server's log says why"))
            else:
                self._committer.decide_now()
                self._committer.submit(self._broker.dead_letters.redrive(search, self._clock.now()), reply)
            finally:
                self._committer.release(self._limits.add_bytes)
        self._running = False
        # Replies that waited for no commit are sent at the end of a cut.
        self._committer.wake()

    async def _read(self, search: Redrive) -> None:
        """Read the rows that *search* wants, a slice at a time."""
        for begin in range(0, len(search.ids), LOOKUPS_MAX):
            end = begin + LOOKUPS_MAX
            found = await self._pool.run(self._store.find, [search.number], search.ids[begin:end])
            search.add_rows([each.item for each in found if each is not None], last=end >= len(search.ids))
            if search.done:
                break
        limits = self._limits
        while not search.done:
            bounds = {"items_max": limits.refill_items, "bytes_max": limits.refill_bytes}
            scan = await self._pool.run(self._store.scan, search.number, search.after, **bounds)
            for gap in scan.gaps:
                line = (
                    "Dead items of queue {queue!r} cannot be read and are skipped: {why}; `queueber verify` lists them"
                )
                self.log.error(line, queue=search.dead.name, why=gap.why)
            search.add_slice(scan)

    def _reply(self, waiting: _Waiting, reply: RedriveReply | QueueberError) -> None:
        """Return *reply*, which is durable."""
        self._replies.release(waiting.sink.peer, waiting.size)
        if isinstance(reply, QueueberError):
            self._replies.refuse(waiting.sink, waiting.answer, reply, _NAME)
        else:
            redriven = control_types.Redriven(moved=reply.moved, more=reply.more)
            waiting.sink.results([waiting.answer], [write_control_response(control_types.REDRIVE, redriven)])
