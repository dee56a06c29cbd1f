"""The options of `connect`, which are the same for all faces."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

from attrs import Attribute, field, frozen

from queueber.client_core.arguments import (
    FRAME_BYTES_HIGHEST,
    flag,
    instance,
    integer,
    path,
    text,
    timeout,
    wrong,
)
from queueber.limits import Limits

AnyPath: TypeAlias = str | os.PathLike[str]

_ATTEMPTS_MAX = (1 << 63) - 1
_LIMITS = {"frame_bytes": "bytes", "segments": "segments", "traversal_factor": "times", "exports": "capabilities"}


def _check_path(_: Tls, argument: Attribute[AnyPath | None], value: AnyPath | None) -> None:
    if value is not None:
        path(argument.name, value)


def _check_text(_: Tls, argument: Attribute[str | None], value: str | None) -> None:
    if value is not None:
        text(argument.name, value)


@frozen(kw_only=True)
class Tls:
    """
    TLS options of a connection.  All files are in PEM format.

    Raises:
        InvalidRequest: an argument is of the wrong type.
    """

    ca: AnyPath | None = field(default=None, validator=_check_path)
    """The authorities to trust; None for those of the operating system."""

    certificate: AnyPath | None = field(default=None, validator=_check_path)
    """The client's certificate, followed by intermediate certificates; None for no certificate."""

    key: AnyPath | None = field(default=None, validator=_check_path)
    """The certificate's private key; None if it is in the same file."""

    server_name: str | None = field(default=None, validator=_check_text)
    """The name that the server's certificate must have; None for the host in the address."""


@frozen(kw_only=True)
class Options:
    """
    How a client connects and calls.

    Raises:
        InvalidRequest: an option is of the wrong type or out of range.
    """

    tls: Tls | None = None
    """TLS on top of the address, or None for none."""

    limits: Limits | None = None
    """
    Bounds that replace the server's: `frame_bytes` in both directions, `segments`, `traversal_factor` and `exports`.

    Without them a message may be as long as the server accepts.
    """

    attempts: int | None = None
    """Failed attempts to connect after which a waiting call fails; None waits without a limit."""

    retry_policy: Callable[[int], float] | None = None
    """Returns the seconds, at most a day, to wait after some failed attempts; None for a backoff up to 10 s."""

    timeout_ms: int | None = None
    """The time limit of every call, to which the wait of a poll is added; None for no limit."""

    resend_adds: bool = False
    """Whether every add has a request id, so that it is sent again after its connection was lost."""

    def __attrs_post_init__(self) -> None:
        if self.tls is not None:
            instance("tls", self.tls, Tls, "a Tls or None")
        if self.limits is not None:
            instance("limits", self.limits, Limits, "a queueber.limits.Limits or None")
            for name, unit in _LIMITS.items():
                integer(f"limits.{name}", getattr(self.limits, name), 1, FRAME_BYTES_HIGHEST, unit)
        if self.attempts is not None:
            integer("attempts", self.attempts, 1, _ATTEMPTS_MAX, "attempts")
        if self.retry_policy is not None and not callable(self.retry_policy):
            raise wrong("retry_policy", self.retry_policy, "a function or None")
        timeout(self.timeout_ms)
        flag("resend_adds", self.resend_adds)
