"""Bytes that one peer has sent and that wait for the `ReadScheduler`."""

from collections.abc import Callable
from typing import Any

from queueber.server.net.read_scheduler import SHARE, ReadScheduler


class InboundBuffer:
    """
    Received bytes of one connection, processed in order and in shares.

    Reading stops while more than a share waits, or while the connection is held.
    """

    def __init__(
        self,
        transport: Any,  # noqa: ANN401
        scheduler: ReadScheduler,
        process: Callable[[bytes], None],
        missing_bytes: Callable[[], int],
    ) -> None:
        """
        Pass everything that *transport* receives to *process*, in as many pieces as *scheduler* decides.

        *missing_bytes* returns how many more bytes complete the message that has begun.
        """
        self._transport = transport
        self._scheduler = scheduler
        self._process = process
        self._missing_bytes = missing_bytes
        self.waiting = bytearray()
        """Bytes that were received and not processed."""

        self._queued = False
        """Whether the scheduler has this buffer in its queue."""

        self._held = False
        self._reading_stopped = False

    def receive(self, data: bytes) -> None:
        """Process *data* now, or queue it."""
        if self.waiting or self._held or not self._scheduler.run(data, self._process):
            # TLS delivers bytes that it has decrypted already even while reading is stopped.
            self.waiting += data
            self._queue()

    def run_share(self, size: int) -> None:
        """Process the first *size* bytes that wait, or as many as complete a message that is longer."""
        self._queued = False
        # Bytes in the middle of a message are only copied, and each share costs as much as a call.
        size = max(size, self._missing_bytes())
        piece = b"" if self._held else bytes(memoryview(self.waiting)[:size])
        if piece:
            del self.waiting[: len(piece)]
            self._scheduler.run(piece, self._process, granted=True)
            self._queue(again=True)

    def hold(self) -> None:
        """Read and process nothing until `release`."""
        self._held = True
        self._update_reading()

    def release(self) -> None:
        """Read and process again."""
        self._held = False
        self._queue()

    def stop(self) -> None:
        """Drop everything that waits or arrives, but read on, so that the end of the connection is noticed."""
        self.waiting.clear()
        self._held = False
        # Both would keep the connection in memory.
        self._process, self._missing_bytes = _drop, _nothing
        self._update_reading()

    def _queue(self, *, again: bool = False) -> None:
        if self.waiting and not self._queued and not self._held:
            self._queued = True
            self._scheduler.queue(self, again=again)
        self._update_reading()

    def _update_reading(self) -> None:
        # To stop and restart reading for a few bytes would cost more than to keep them.
        stop = self._held or len(self.waiting) > SHARE
        if stop != self._reading_stopped:
            self._reading_stopped = stop
            if stop:
                self._transport.pauseProducing()
            else:
                self._transport.resumeProducing()


def _drop(data: bytes) -> None:
    """Drop the bytes of a connection that ends."""


def _nothing() -> int:
    """No message of a connection that ends lacks bytes."""
    return 0
