"""The options of `connect`, which are the same for all faces."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from queueber.client_core.arguments import (
    flag,
    instance,
    integer,
    path,
    text,
    timeout,
    wrong,
)
from queueber.fixed_limits import FRAME_BYTES_HIGHEST

if TYPE_CHECKING:
    from queueber.limits import Limits

AnyPath: TypeAlias = str | os.PathLike[str]

_ATTEMPTS_MAX = (1 << 63) - 1
_LIMITS = {"frame_bytes": "bytes", "segments": "segments", "traversal_factor": "times", "exports": "capabilities"}


class Tls:
    """
    TLS options of a connection.  All files are in PEM format.

    Raises:
        InvalidRequest: an argument is of the wrong type.
    """

    def __init__(
        self,
        *,
        ca: AnyPath | None = None,
        certificate: AnyPath | None = None,
        key: AnyPath | None = None,
        server_name: str | None = None,
    ) -> None:
        """Check the arguments, but open no file."""
        for name, value in (("ca", ca), ("certificate", certificate), ("key", key)):
            if value is not None:
                path(name, value)
        if server_name is not None:
            text("server_name", server_name)
        self.ca = ca
        """The authorities to trust; None for those of the operating system."""

        self.certificate = certificate
        """The client's certificate, followed by intermediate certificates; None for no certificate."""

        self.key = key
        """The certificate's private key; None if it is in the same file."""

        self.server_name = server_name
        """The name that the server's certificate must have; None for the host in the address."""

    def __repr__(self) -> str:
        return f"Tls({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tls) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))


class ConnectOptions:
    """
    The options with which a client connects and calls.

    Raises:
        InvalidRequest: an option is of the wrong type or out of range.
    """

    def __init__(
        self,
        *,
        tls: Tls | None = None,
        limits: Limits | None = None,
        attempts: int | None = None,
        retry_policy: Callable[[int], float] | None = None,
        timeout_ms: int | None = None,
        resend_adds: bool = False,
    ) -> None:
        """Check the options."""
        if tls is not None:
            instance("tls", tls, Tls, "a Tls or None")
        if limits is not None:
            _check_limits(limits)
        if attempts is not None:
            integer("attempts", attempts, 1, _ATTEMPTS_MAX, "attempts")
        if retry_policy is not None and not callable(retry_policy):
            raise wrong("retry_policy", retry_policy, "a function or None")
        timeout(timeout_ms)
        flag("resend_adds", resend_adds)
        self.tls = tls
        """TLS on top of the address, or None for none."""

        self.limits = limits
        """
        Bounds that replace the server's: `frame_bytes` in both directions, `segments`, `traversal_factor`, `exports`.

        Without them a message may be as long as the server accepts.
        """

        self.attempts = attempts
        """Failed attempts to connect after which a waiting call fails; None waits without a limit."""

        self.retry_policy = retry_policy
        """Returns the seconds, at most a day, to wait after some failed attempts; None for a backoff up to 10 s."""

        self.timeout_ms = timeout_ms
        """The time limit of every call, to which the wait of a poll is added; None for no limit."""

        self.resend_adds = resend_adds
        """Whether every add has a request id, so that it is sent again after its connection was lost."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConnectOptions) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def replace(self, **changes: Any) -> ConnectOptions:  # noqa: ANN401
        """Return these options with *changes*."""
        return ConnectOptions(**{**vars(self), **changes})


def _check_limits(limits: Limits) -> None:
    # A program that has limits has imported them.
    from queueber.limits import Limits  # noqa: PLC0415

    instance("limits", limits, Limits, "a queueber.limits.Limits or None")
    for name, unit in _LIMITS.items():
        integer(f"limits.{name}", getattr(limits, name), 1, FRAME_BYTES_HIGHEST, unit)
