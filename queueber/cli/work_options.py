"""The options of ``queueber work``: their declarations, and their values for one process."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote, urlencode

import click
from attrs import field, frozen

from queueber.cli.arguments import PATH, option_group, seconds
from queueber.cli.server_options import ADDRESS_DEFAULT, ServerSelection
from queueber.client_core.address import PORT_MAX, TcpAddress
from queueber.client_core.address import parse as parse_address
from queueber.client_core.url import target_of
from queueber.units import MIB, MS_PER_SECOND, Unit, counted, parse

T = TypeVar("T")

PROCESSES_MAX: Final = 1_000
GRACE_SECONDS: Final = 20.0
DEFER_SECONDS: Final = 10.0

WORKER_SETTINGS: Final = (
    "strict",
    "concurrency",
    "prefetch",
    "max_runtime",
    "lease",
    "liveness_file",
    "http_port",
    "http_host",
)
"""The options that are arguments of `queueber.worker.Worker`."""


@frozen(kw_only=True)
class Limit:
    """The work after which a process is replaced.  0: no bound."""

    items: int = 0
    memory: int = 0
    """Bytes of resident memory."""

    def reached(self, items: int, memory: int) -> str:
        """Return why a process that has processed *items* and has this much *memory* is replaced; empty: it is not."""
        if self.items and items >= self.items:
            return counted(items, "item")
        # A process that is too large from the start processes some items all the same.
        if self.memory and memory >= self.memory and items:
            return f"{memory / MIB:,.0f} MiB of memory"
        return ""


@frozen(kw_only=True)
class WorkOptions:
    """The options that concern one process.  Times are in seconds."""

    target: str = ""
    """MODULE:OBJECT, or empty for a command."""

    command: Sequence[str] = ()
    folder: Path = field(factory=Path.cwd)
    """The directory in which modules are looked up first."""

    url: str = ADDRESS_DEFAULT
    """The server."""

    url_given: bool = False
    """Whether the user named a server: it overrides the server of a `Tasks`."""

    processes: int = 1
    """The number of processes like this one."""

    queues: Sequence[str] = ()
    """The names given with `--queue`, without the queue of the URL."""

    settings: Mapping[str, Any] = field(factory=dict)
    """The values of the `WORKER_SETTINGS` that were given."""

    grace: float = GRACE_SECONDS
    """Time for running items to end after a signal.  Overrides that of a `Worker`."""

    defer_seconds: float = DEFER_SECONDS
    discard_output: bool = False
    scheduler: bool = True
    verbose: bool = False
    quiet: bool = False
    limit: Limit = Limit()


def url_of(server: ServerSelection, url: str | None) -> tuple[str, bool]:
    """
    Return the address of the server that the options select, with their TLS, and whether any of them was given.

    Raises:
        click.UsageError: they contradict each other.
    """
    tls = server.tls
    if url is not None:
        if server.address != ADDRESS_DEFAULT or tls is not None:
            raise click.UsageError(
                "--url contains the address and the TLS options: --addr and --tls cannot be given as well."
            )
        return url, True
    if tls is None:
        return server.address, server.address != ADDRESS_DEFAULT
    address = parse_address(server.address)
    if not isinstance(address, TcpAddress):
        raise click.UsageError("TLS needs an address HOST:PORT here, or a --url.")
    host = f"[{address.host}]" if ":" in address.host else quote(address.host)
    given = {name: str(value) for name in ("ca", "certificate", "key", "server_name") if (value := getattr(tls, name))}
    query = f"?{urlencode(given, quote_via=quote)}" if given else ""
    return f"queueber+tls://{host}:{address.port}{query}", True


def queue_in(url: str) -> str | None:
    """
    Return the queue that *url* names; None without one, and for an address that is no URL.

    Raises:
        InvalidRequest: the URL is invalid.
    """
    return target_of(url).queue if "://" in url else None


def _seconds(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    ms = seconds(ctx, parameter, value)
    return None if ms is None else ms / MS_PER_SECOND


def _lease(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | Literal["session"] | None:
    return "session" if value == "session" else _seconds(ctx, parameter, value)


def limit_of(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> Limit:
    """
    Return the limit in *values*, numbers of items or sizes with a unit.

    Raises:
        click.BadParameter: one is neither, or there are two of a kind.
    """
    found: dict[str, int] = {}
    for value in values:
        kind = "items" if value.replace("_", "").isdecimal() else "memory"
        try:
            number = parse(value, Unit.COUNT if kind == "items" else Unit.BYTES)
        except ValueError:
            number = 0
        if not number:
            raise click.BadParameter(
                f"{value!r} is neither a number of items, such as 10000, nor a size, such as 512MiB."
            )
        if kind in found:
            raise click.BadParameter(f"{value} is a second limit of the same kind.")
        found[kind] = number
    return Limit(**found)


worker_options = option_group(
    click.option(
        "--queue", "queues", multiple=True, metavar="NAME", help="A queue; repeatable.  Tasks have their own."
    ),
    click.option(
        "--strict", is_flag=True, default=None, help="Serve the first queue that has an item, not all in turns."
    ),
    click.option(
        "--url", metavar="URL", envvar="QUEUEBER_URL", show_envvar=True, help="The server, instead of --addr."
    ),
    click.option(
        "--concurrency",
        type=click.IntRange(1),
        metavar="N",
        help="Items at a time in each process; by default 1 command, 100 coroutines, or 4 threads more than "
        "there are processors, at most 32.",
    ),
    click.option("--prefetch", type=click.IntRange(0), metavar="N", help="Items to fetch in advance."),
    click.option("--max-runtime", callback=_seconds, metavar="SECONDS", help="Time after which a running item fails."),
    click.option(
        "--lease",
        callback=_lease,
        metavar="SECONDS|session",
        help="Length of leases, which are then extended; by default a session keeps them while the worker lives.",
    ),
    click.option(
        "--grace",
        callback=_seconds,
        metavar="SECONDS",
        default=f"{GRACE_SECONDS:g}",
        show_default=True,
        help="Time for running items to end after a signal.",
    ),
    click.option(
        "--liveness-file",
        type=PATH,
        metavar="PATH",
        help="A file to touch while the worker makes progress; PATH.1, PATH.2 and so on with --processes.",
    ),
    click.option(
        "--http-port",
        type=click.IntRange(1, PORT_MAX),
        metavar="PORT",
        help="A port for a page with the health of the worker; the next ones with --processes.",
    ),
    click.option(
        "--http-host",
        metavar="HOST",
        help="The address of that page, instead of 127.0.0.1, for probes of other machines.",
    ),
    click.option("--no-scheduler", is_flag=True, help="Do not add the items of periodic tasks."),
)

process_options = option_group(
    click.option(
        "--processes",
        type=click.IntRange(1, PROCESSES_MAX),
        metavar="N",
        default=1,
        show_default=True,
        help="Worker processes, under a supervisor that replaces those that die.",
    ),
    click.option(
        "--recycle-after",
        "limit",
        multiple=True,
        callback=limit_of,
        metavar="ITEMS|SIZE",
        help="Replace a process after this number of items, or at a size such as 512MiB; may be given for both.",
    ),
    click.option("--reload", is_flag=True, help="Restart when a Python file in the working directory changes."),
)

command_options = option_group(
    click.option(
        "--defer",
        "defer_seconds",
        callback=_seconds,
        metavar="SECONDS",
        help=f"Time after which an item is retried whose command exited with 75; by default {DEFER_SECONDS:g}.",
    ),
    click.option("--discard-output", is_flag=True, help="Drop the output of commands; errors are kept with items."),
)
