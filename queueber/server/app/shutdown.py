"""
Stop a server in order: connections, new calls, calls under way, reads, the last commit.

Each step has a time limit, and logs what it abandoned when the limit was reached.
"""

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger

from queueber.broker import StoreStalled
from queueber.errors import Stopping
from queueber.server.app.composition import ServerParts
from queueber.server.app.sd_notify import Notifier
from queueber.units import counted

_CHECK_SECONDS = 0.01


@define(eq=False)
class GracefulShutdown:
    """The shutdown of a server, which knows what it is waiting for."""

    _reactor: Any
    _seconds: float
    """The time limit for calls under way, and again for peers to receive their replies."""

    _notifier: Notifier
    _stage: Callable[[], str] = field(default=lambda: "for the start to end", init=False)
    log = Logger()

    @property
    def stage(self) -> str:
        """Return what the shutdown is waiting for."""
        return self._stage()

    def at(self, stage: str | Callable[[], str]) -> None:
        """Report to the supervisor that the shutdown is at *stage*."""
        self._stage = stage if callable(stage) else lambda: stage
        self._notifier.status(f"Stopping: waiting {self.stage}")

    async def run(self, up: ServerParts) -> None:
        """
        Stop *up*, with everything on disk.  The store stays open.

        Raises:
            StoreStalled: the store accepts no writes within the time limit.  What is not on disk was not acknowledged.
        """
        self.log.info(
            "Stopping: {under_way} under way, {waiting} now; {connected}",
            under_way=counted(up.handlers.outstanding, "call is", "calls are"),
            connected=counted(len(up.connections), "connection"),
            waiting=counted(
                up.broker.polls.waiting,
                "of them a poll that waits and is ended",
                "of them polls that wait and are ended",
            ),
            calls=up.handlers.outstanding,
            polls=up.broker.polls.waiting,
            connections=len(up.connections),
        )
        await DeferredList([maybeDeferred(port.stopListening) for port in up.ports])
        up.handlers.drain()
        up.sessions.drain()
        up.dispatcher.end_waiting(Stopping("the server is stopping"))
        up.flush_queue.flush()
        await self._drained(up)
        await self._disconnect(up)
        await DeferredList([maybeDeferred(timer.stopService) for timer in up.timers if timer.running])
        up.reads.stop()
        await self._commit_rest(up)
        await self._reads_ended(up)
        up.dispatcher.stop()

    async def _drained(self, up: ServerParts) -> None:
        """Wait until no call is outstanding, or the time limit is reached."""
        handlers = up.handlers
        self.at(lambda: f"for the replies to {counted(handlers.outstanding, 'call')} under way")
        if not await self._until(lambda: not handlers.outstanding):
            self.log.warn(
                "{unanswered} got no reply within {seconds:g} s (drain-seconds); the outcome is not known to"
                " the clients",
                unanswered=counted(handlers.outstanding, "call"),
                calls=handlers.outstanding,
                seconds=self._seconds,
            )

    async def _disconnect(self, up: ServerParts) -> None:
        """Wait until all peers have received their replies, or the time limit is reached."""
        connections = up.connections
        for connection in connections:
            connection.close()
        self.at(lambda: f"for {counted(len(connections), 'peer')} to take all replies")
        if not await self._until(lambda: not connections):
            self.log.warn(
                "Cutting {connected} over which not all replies were taken within {seconds:g} s (drain-seconds)",
                connected=counted(len(connections), "connection"),
                peers=len(connections),
                seconds=self._seconds,
            )
        for connection in connections:
            connection.abort()
        await _pause(self._reactor, 0)

    async def _commit_rest(self, up: ServerParts) -> None:
        """Wait until all decided plans are on disk; raise `StoreStalled` at the time limit."""
        self.at("for the last commit")
        idle = up.committer.idle()
        began = self._reactor.seconds()
        while not idle.called:
            if up.committer.stalled and self._reactor.seconds() - began >= self._seconds:
                raise StoreStalled("the storage engine has to catch up first, and does not")
            await _pause(self._reactor, _CHECK_SECONDS)

    async def _reads_ended(self, up: ServerParts) -> None:
        """Wait until no thread reads the store, which will be closed.  The calls have been given up before."""
        self.at(lambda: f"for {counted(up.reads.under_way, 'read')} of the store to end")
        while up.reads.under_way:
            await _pause(self._reactor, _CHECK_SECONDS)

    async def _until(self, done: Callable[[], bool]) -> bool:
        """Wait until *done* returns true, and return whether it did within the time limit."""
        began = self._reactor.seconds()
        while not done():
            if self._reactor.seconds() - began >= self._seconds:
                return False
            await _pause(self._reactor, _CHECK_SECONDS)
        return True


def _pause(reactor: Any, seconds: float) -> Deferred[None]:  # noqa: ANN401
    waiting: Deferred[None] = Deferred()
    reactor.callLater(seconds, waiting.callback, None)
    return waiting
