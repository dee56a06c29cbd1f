"""The Python prompt of a session: runs the input inside the server, and shows the results of Deferreds."""

from codecs import getincrementaldecoder
from typing import Any

from twisted.conch.insults.insults import modes
from twisted.conch.manhole import Manhole, ManholeInterpreter
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber import __version__
from queueber.server.admin.console.commands import Command, Commands
from queueber.server.monitoring.diagnostics import Diagnostics

_LOGGED_LETTERS_MAX = 500

log = Logger()


class Interpreter(ManholeInterpreter):
    """The interpreter of the input.  The result of a Deferred is shown when it fires."""

    handler: "Prompt"

    def displayhook(self, obj: object) -> None:
        """Show *obj*, or the result of a Deferred."""
        if isinstance(obj, Deferred):
            self.handler.show(obj)
        else:
            super().displayhook(obj)  # type: ignore[no-untyped-call]


class Prompt(Manhole):
    """The Python prompt."""

    ps = (b"queueber> ", b"... ")

    def __init__(self, diagnostics: Diagnostics, number: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._diagnostics = diagnostics
        self._number = number
        self.ended = False
        self._decode = getincrementaldecoder("utf-8")().decode
        self._not_utf_8 = False
        """The line has bytes that are not UTF-8."""

        self._pending = 0
        self._leaving = False

    def connectionMade(self) -> None:
        """Create the commands and the interpreter."""
        self._commands = Commands(self._diagnostics)
        leave = {
            name: Command(f"{name}()", self._exit, "End the session, as Ctrl-D does.") for name in ("exit", "quit")
        }
        self.namespace = {**self._commands.all(), **leave, "__name__": "__console__"}
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.interpreter = Interpreter(self, self.namespace)  # type: ignore[no-untyped-call]

    def initializeScreen(self) -> None:
        """Show the commands."""
        self.terminal.setModes({modes.IRM})
        self.setInsertMode()  # type: ignore[no-untyped-call]
        lines = (
            f"Queueber {__version__}: a Python prompt inside the server. Commands, which change nothing:",
            f"  {' '.join(command.signature for command in self._commands.all().values())}",
            "Other input is Python code, which the server runs. Ctrl-D ends the session.",
        )
        for line in lines:
            self.terminal.write(line.encode())
            self.terminal.nextLine()
        self.terminal.write(self.ps[self.pn])

    def terminalSize(self, width: int, height: int) -> None:
        """Note the size, and leave the screen as it is."""
        self.width, self.height = width, height

    def keystrokeReceived(self, keyID: Any, modifier: object) -> None:  # noqa: ANN401
        """Accept a key or a byte.  A non-ASCII character is inserted with its last byte."""
        if self.ended:
            return
        letter = keyID
        if isinstance(keyID, bytes):
            try:
                letter = self._decode(keyID).encode()
            except UnicodeDecodeError:
                self._decode = getincrementaldecoder("utf-8")().decode
                self._not_utf_8 = True
                letter = keyID if keyID.isascii() else "\N{REPLACEMENT CHARACTER}".encode()
        if letter != keyID:
            self._insert_letters(letter)
        else:
            super().keystrokeReceived(keyID, modifier)  # type: ignore[no-untyped-call]

    def _insert_letters(self, letters: bytes) -> None:
        for letter in letters.decode():
            self.characterReceived(letter.encode(), moreCharactersComing=False)  # type: ignore[no-untyped-call]

    def _deliverBuffer(self, buf: bytes) -> None:
        """Insert a line of the history."""
        self._insert_letters(buf)

    def handle_INT(self) -> None:
        """Discard the input, at Ctrl-C."""
        self._not_utf_8 = False
        super().handle_INT()  # type: ignore[no-untyped-call]

    def handle_EOF(self) -> None:
        """End the block that is being typed, or else the session, at Ctrl-D."""
        if self.lineBuffer or not self.pn:
            super().handle_EOF()  # type: ignore[no-untyped-call]
            return
        self.terminal.nextLine()
        self.lineReceived(b"")
        if self.pn:
            self.handle_INT()

    def addOutput(self, data: str, isAsync: bool | None = None) -> None:
        """Show *data*, with surrogates escaped."""
        super().addOutput(data.encode(errors="backslashreplace"), isAsync)  # type: ignore[no-untyped-call]

    def lineReceived(self, line: bytes) -> None:
        """Run *line*."""
        if self._not_utf_8:
            self._not_utf_8 = False
            self.terminal.write(b"Not run: this line is not UTF-8.")
            line = b""
        if line.strip():
            typed = line.decode(errors="replace")[:_LOGGED_LETTERS_MAX]
            log.info("Console session {number}: {line!r}", number=self._number, line=typed)
        more = False
        try:
            more = self.interpreter.push(line)
        except SystemExit:
            self.leave()
        if not self.ended:
            self.pn = int(bool(more))
            if self._needsNewline():  # type: ignore[no-untyped-call]
                self.terminal.nextLine()
            self.terminal.write(self.ps[self.pn])

    def show(self, result: Deferred[object]) -> None:
        """Show *result*, now or when it fires."""
        texts: list[str] = []
        self._pending += 1
        text = result.addCallbacks(repr, lambda why: f"{why.type.__name__}: {why.getErrorMessage()}")
        text.addCallback(lambda text: self._show_result(text, texts))
        if texts:
            self.terminal.write(texts[0].encode())
        else:
            texts.append("")
            self.terminal.write(b"(a moment)")

    def _show_result(self, text: str, texts: list[str]) -> None:
        self._pending -= 1
        if not texts:
            texts.append(text)
        elif not self.ended:
            self._insert(text)
        if self._leaving and not self._pending:
            self.leave()

    def _insert(self, text: str) -> None:
        """Write *text* above the line that is being typed."""
        typed = b"".join(self.lineBuffer)
        letters = len(self.lineBuffer)
        self.terminal.eraseLine()
        self.terminal.cursorBackward(letters + len(self.ps[self.pn]))
        self.terminal.write(text.encode())
        self.terminal.nextLine()
        self.terminal.write(self.ps[self.pn] + typed)
        if letters > self.lineBufferIndex:
            self.terminal.cursorBackward(letters - self.lineBufferIndex)

    def handle_QUIT(self) -> None:
        """End the session when all results are shown, at Ctrl-D."""
        self._leaving = True
        if not self._pending:
            self.leave()

    def _exit(self, status: object = None) -> None:  # noqa: ARG002  (users are used to giving one)
        self.leave()

    def leave(self) -> None:
        """End the session, and leave the screen as it is."""
        if not self.ended:
            self.ended = True
            self.terminal.resetModes({modes.IRM})
            self.terminal.nextLine()
            self.terminal.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Show no further results."""
        self.ended = True
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
