"""The loop of ``queueber top``: asks the server, reads keys and draws, on the reactor."""

import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from queueber.cli.queue_output import text_of
from queueber.cli.top_keys import ESCAPE_SECONDS, KeyDecoder
from queueber.cli.top_questions import TopCalls
from queueber.cli.top_state import Change, Quit, Refresh, Screen, Top
from queueber.cli.top_terminal import Terminal
from queueber.cli.top_view import picture
from queueber.client.blocking import NoAnswer
from queueber.errors import QueueberError, one_line, reason


@implementer(IReadDescriptor)
class TopLoop:
    """Ask, draw and read keys, until a key ends it."""

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  (reactors have no common type)
        top: Top,
        questions: TopCalls,
        terminal: Terminal,
        answer_seconds: float,
    ) -> None:
        """Show *top* on *terminal*.  A server that does not answer within *answer_seconds* counts as silent."""
        self._reactor = reactor
        self._top = top
        self._questions = questions
        self._terminal = terminal
        self._answer_seconds = answer_seconds
        self._keys = KeyDecoder()
        self._calls: dict[str, Any] = {}
        """The delayed calls by their purpose."""

        self._asking = False
        self._again = False
        """Ask again at once when the present round ends: something else is shown by now."""

        self._ended: Deferred[None] = Deferred()

    async def run(self) -> None:
        """
        Show the server until the user ends it.

        Raises:
            QueueberError: the server did not answer the first questions.  Later failures are shown, and the questions
                continue.
        """
        # Before the screen changes: a mistyped address is an error, not an empty screen.
        self._top.take(await self._limited(self._questions.sample()))
        acts = {signal.SIGWINCH: self.draw, signal.SIGTSTP: self._suspend, signal.SIGHUP: self._hang_up}
        for number, act in acts.items():
            signal.signal(number, lambda *_, act=act: self._reactor.callFromThread(self._guarded, act))
        self._terminal.enter()
        self.draw()
        self._reactor.addReader(self)
        self._later("ask", self._top.interval, self._ask)
        try:
            await self._ended
        finally:
            self._reactor.removeReader(self)
            for call in self._calls.values():
                if call.active():
                    call.cancel()

    def draw(self) -> None:
        """Draw what is known."""
        columns, rows = self._terminal.size()
        clock = datetime.now().astimezone().strftime("%H:%M:%S")
        self._terminal.draw(picture(self._top, self._reactor.seconds(), columns, rows, clock))

    def _later(self, purpose: str, seconds: float, act: Callable[[], None]) -> None:
        """Call *act* after some seconds, in place of an earlier call for the same purpose."""
        before = self._calls.get(purpose)
        if before is not None and before.active():
            before.cancel()
        self._calls[purpose] = self._reactor.callLater(seconds, self._guarded, act)

    def _guarded(self, act: Callable[[], None]) -> None:
        """Call *act*; an error of ours ends the program with its traceback, on the restored terminal."""
        try:
            act()
        except Exception:  # noqa: BLE001  (raised again by `run`)
            self._end(Failure())

    def _end(self, outcome: Failure | None = None) -> None:
        if not self._ended.called:
            self._ended.callback(outcome)

    # Questions

    async def _limited(self, asking: Awaitable[Any]) -> Any:  # noqa: ANN401
        limited: Deferred[Any] = ensureDeferred(asking)  # type: ignore[arg-type]  # a coroutine
        limited.addTimeout(self._answer_seconds, self._reactor)
        try:
            return await limited
        except Late:
            raise NoAnswer(f"no answer within {self._answer_seconds:g} s") from None

    def _ask(self, change: Change | None = None) -> None:
        """Ask the server for all that is shown, after it has made a *change*."""
        if self._asking and change is None:
            self._again = True
            return
        self._asking = True
        ensureDeferred(self._round(change)).addErrback(self._end)

    async def _round(self, change: Change | None) -> None:
        top = self._top
        try:
            if change is not None:
                await self._limited(self._questions.change(change))
                top.message = f"{'paused' if change.pause else 'resumed'} {text_of(change.queue)}"
            await self._limited(self._answers())
        except (QueueberError, OSError) as why:
            top.error = one_line(reason(why)) or type(why).__name__
        self._asking = False
        if self._ended.called:
            return
        self.draw()
        self._later("ask", 0 if self._again else top.interval, self._ask)
        self._again = False

    async def _answers(self) -> None:
        top = self._top
        sample = await self._questions.sample()
        opened = top.opened
        detail = await self._questions.detail(opened, dead=top.dead) if opened is not None else None
        leases = await self._questions.leases(sample) if top.screen is Screen.WORKERS else None
        top.take(sample, detail, leases)

    # Keys

    def fileno(self) -> int:
        """Return the descriptor of the keyboard.  Part of `IReadDescriptor`."""
        return self._terminal.keyboard

    def doRead(self) -> None:
        """Read keys.  Part of `IReadDescriptor`."""
        self._guarded(self._read)

    def logPrefix(self) -> str:
        """Return the name in logs.  Part of `IReadDescriptor`."""
        return "queueber top"

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002  (Twisted's signature)
        """End: the terminal is gone.  Part of `IReadDescriptor`."""
        self._hang_up()

    def _read(self) -> None:
        data = self._terminal.read()
        if not data:
            self._hang_up()
            return
        self._press(self._keys.feed(data))
        if self._keys.unfinished:
            self._later("escape", ESCAPE_SECONDS, lambda: self._press(self._keys.flush()))

    def _press(self, keys: list[str]) -> None:
        for key in keys:
            action = self._top.press(key)
            if isinstance(action, Quit):
                self._end()
                return
            if isinstance(action, Change):
                self._ask(action)
            elif isinstance(action, Refresh):
                self._ask()
        self.draw()

    # Signals

    def _suspend(self) -> None:
        self._terminal.suspend()
        self.draw()

    def _hang_up(self) -> None:
        """End as by a signal."""
        with suppress(ReactorNotRunning):
            self._reactor.stop()
