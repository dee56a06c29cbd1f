"""Run one piece of work against a server, with a reactor only if it is needed."""

import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from queueber.client import Client, Tls, connect
from queueber.client.blocking import BlockingConnector, NoAnswer, run_blocking
from queueber.client_core.url import plain_address

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

T = TypeVar("T")


class Interrupted(Exception):
    """A signal ended the work before it was done."""


STOP_SECONDS = 8.0
"""Time that work may take to end after a signal, less than the 10 s after which most supervisors kill a process."""


class Session(Generic[T]):
    """Run work on the reactor, for at most *seconds*."""

    def __init__(
        self,
        work: Callable[[Any], Awaitable[T]],
        seconds: float | None = None,
        *,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        """
        Take *work*, a function of the reactor.

        *stop* is called at the first signal.  If it returns True, the work ends by itself: it is waited for until the
        next signal, and for at most `STOP_SECONDS`.  Otherwise a signal ends the work at once.
        """
        self._seconds = seconds
        self._work = work
        self._stop = stop
        self._results: list[T] = []
        self._error: Exception | None = None
        self._waiting: Deferred[None] | None = None
        """Delays the reactor's shutdown until the work has ended."""

    def _interrupted(self, reactor: Any) -> "Deferred[None] | None":  # noqa: ANN401
        """Record an interruption if the reactor stops without an outcome.  Errors that follow do not count."""
        if self._results or self._error is not None:
            return None
        self._error = Interrupted()
        if self._stop is None:
            return None
        from twisted.internet.defer import Deferred  # noqa: PLC0415

        # Before `stop` is called: the reactor's own handlers would fail at a second signal during that.
        self._waiting = Deferred()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: reactor.callFromThread(self._shut_down))
        if not self._stop():
            return None
        reactor.callLater(STOP_SECONDS, self._shut_down)
        return self._waiting

    def _shut_down(self) -> None:
        """Let the reactor shut down, if an interruption has delayed that."""
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(None)

    def _late(self, reactor: Any) -> None:  # noqa: ANN401
        """Stop without closing the connection, because a silent peer may delay the close."""
        if not self._results and self._error is None:
            self._error = NoAnswer(f"no answer within {self._seconds:g} s")
        reactor.stop()

    async def _main(self, reactor: Any) -> None:  # noqa: ANN401  (reactors have no common type)
        reactor.addSystemEventTrigger("before", "shutdown", self._interrupted, reactor)
        late = reactor.callLater(self._seconds, self._late, reactor) if self._seconds is not None else None
        try:
            self._results.append(await self._work(reactor))
        except Exception as why:  # noqa: BLE001  (raised again by `run`, outside the reactor)
            self._error = self._error or why
        if late is not None and late.active():
            late.cancel()
        self._shut_down()

    def run(self) -> T:
        """
        Run the work and return its result.  Once per process, because a reactor cannot be restarted.

        Raises:
            QueueberError: the address is invalid, there is no connection, or the work failed.
            NoAnswer: the time limit passed first.
            Interrupted: a signal arrived first.
        """
        # Imported here, because it takes most of a command's run time and most commands do not need it.
        from twisted.internet.task import react  # noqa: PLC0415

        try:
            react(self._main)
        except SystemExit:
            if self._error is not None:
                raise self._error from None
        return self._results[0]


def run(
    address: str,
    work: Callable[[Client], Awaitable[T]],
    tls: Tls | None = None,
    seconds: float | None = None,
    *,
    concurrent: bool = False,
) -> T:
    """
    Run *work* with a client of the server at *address* and return its result.  Errors are those of `Session.run`.

    *work* must wait for each call before it makes the next, unless it is *concurrent*.
    """
    direct = None if tls is not None or concurrent else plain_address(address)
    if direct is not None:
        return _run_blocking(BlockingConnector(direct, name=address, seconds=seconds), work)

    async def connected(reactor: Any) -> T:  # noqa: ANN401
        client = connect(reactor, address, tls=tls, attempts=1)
        try:
            result = await work(client)
        except Exception:
            await client.close()
            raise
        # Not in a `finally`: work that exceeds its time is abandoned, and its clean-up may run at any time.
        await client.close()
        return result

    return Session(connected, seconds).run()


def _run_blocking(connector: BlockingConnector, work: Callable[[Client], Awaitable[T]]) -> T:
    client = Client(connector)  # type: ignore[arg-type]  # its calls can be awaited, and *work* only awaits them
    try:
        with _signals_interrupt():
            return run_blocking(work(client))
    except KeyboardInterrupt:
        raise Interrupted from None
    finally:
        connector.close()


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Raise `Interrupted` on SIGTERM, as Python raises `KeyboardInterrupt` on SIGINT."""

    def interrupt(_: int, __: FrameType | None) -> NoReturn:
        raise Interrupted

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
