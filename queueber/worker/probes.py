"""The liveness file and the health page of a worker, which probes look at, from its start to its end."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from queueber.client_core.address import PORT_MAX
from queueber.errors import InvalidRequest, reason
from queueber.worker.handling import LOG
from queueber.worker.liveness import Health, LivenessFile

if TYPE_CHECKING:
    from pathlib import Path

    from queueber.worker.health_page import HealthPage


class Probes:
    """The file and the page of one worker, both optional.  Neither is there before `show`, or after `close`."""

    def __init__(
        self, health: Callable[[], Health], file: str | os.PathLike[str] | None, port: int | None, host: str
    ) -> None:
        """
        Show *health* in a page at *port* of *host*, and touch *file*, relative to the present working directory.

        Raises:
            InvalidRequest: an argument is of the wrong type.
        """
        if file is not None and not isinstance(file, str | os.PathLike):
            raise InvalidRequest(f"liveness_file is {file!r}; it must be a path")
        if not isinstance(host, str):
            raise InvalidRequest(f"http_host is {host!r}; it must be text")
        self.file: LivenessFile | None = None
        self._health = health
        self._path = None if file is None else _absolute(file)
        self._port = port
        self._host = host
        self._page: HealthPage | None = None
        self._shown = False

    @property
    def address(self) -> tuple[str, int] | None:
        """The host and port of the page; None as long as there is none."""
        page = self._page
        return None if page is None else page.address

    def show(self, slot: int | None = None) -> None:
        """
        Listen, and create the file.  Has no effect if that was done before.

        Process number *slot* of several, from 0, listens at the port with that number above the first one's, and has a
        file of its own, whose name ends with the number from 1.

        Raises:
            InvalidRequest: the port cannot be opened, or the file cannot be written.
        """
        if self._shown:
            return
        if self._port is not None:
            # Imported here, because the HTTP server takes long to import.
            from queueber.worker.health_page import HealthPage  # noqa: PLC0415

            self._page = HealthPage(self._health, _port_of(self._port, slot), self._host)
        if self._path is not None:
            path = self._path if slot is None else self._path.with_name(f"{self._path.name}.{slot + 1}")
            try:
                self.file = LivenessFile(path)
            except InvalidRequest:
                self.close()
                raise
        self._shown = True
        if (address := self.address) is not None:
            LOG.info("the health page is at port %d of %s", address[1], address[0])

    def close(self) -> None:
        """Remove the file and close the port: the worker has ended.  Logs what cannot be done."""
        file, self.file, page, self._page, self._shown = self.file, None, self._page, None, False
        try:
            if file is not None:
                file.remove()
        except OSError as why:
            LOG.warning("the liveness file cannot be removed: %s", reason(why))
        if page is not None:
            page.close()


def _port_of(first: int, slot: int | None) -> int:
    # Port 0 is any free one, for each process.
    port = first + (slot or 0) if first else 0
    if port > PORT_MAX:
        raise InvalidRequest(
            f"http_port is {first}, and {port} for process {port - first + 1}; the limit is {PORT_MAX}"
        )
    return port


def _absolute(file: str | os.PathLike[str]) -> Path:
    # Imported here, because few workers have a file.
    from pathlib import Path  # noqa: PLC0415

    return Path(file).absolute()
