"""Options that select the server and the queue, accepted before and after the name of a command."""

import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click
from click.core import ParameterSource

from queueber.cli.arguments import PATH, time_limit
from queueber.cli.output import printable
from queueber.cli.streams import EXIT_ERROR
from queueber.client import Client, Queue, Tls
from queueber.client_core.url import target_of
from queueber.errors import InvalidRequest
from queueber.units import MS_PER_SECOND
from queueber.values import DEFAULT_QUEUE

if TYPE_CHECKING:
    from queueber.client.control import QueueControl

T = TypeVar("T")

_JSON = click.Option(("--json", "as_json"), is_flag=True, help="Print JSON, for programs.")
_TIMEOUT = click.Option(
    ("--timeout", "timeout_ms"),
    callback=time_limit,
    envvar="QUEUEBER_TIMEOUT",
    show_envvar=True,
    metavar="SECONDS",
    help="Time limit of the call, from connecting to the answer; by default none.  The wait of a poll is added to it.",
)
_IF_EXISTS = click.Option(
    ("--if-exists", "if_exists"), is_flag=True, help="Take a queue that does not exist for an empty one: no error."
)
json_option = click.option("--json", "as_json", is_flag=True, help=_JSON.help)

Runner = Callable[..., Any]
"""Run work against the server at an address: `queueber.cli.session.run`, or a replacement in tests."""

ADDRESS_DEFAULT: Final = "127.0.0.1:9090"

_EPILOG = "The options of `queueber` itself, such as --addr, --queue and --tls-ca, are accepted here too."


class ServerSelection(NamedTuple):
    """
    The server and queue that the options select, and the output, the time limit and the like of a command.

    The fields after `run` have the names of the options.
    """

    run: Runner
    address: str
    queue: str | None = None
    tls_wanted: bool = False
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_server_name: str | None = None
    as_json: bool = False
    timeout_ms: int | None = None
    if_exists: bool = False

    @property
    def tls(self) -> Tls | None:
        """Return the TLS options; None for plaintext."""
        tls = Tls(ca=self.tls_ca, certificate=self.tls_certificate, key=self.tls_key, server_name=self.tls_server_name)
        return tls if self.tls_wanted or tls != Tls() else None

    def do(self, work: Callable[[Queue], Any]) -> Any:  # noqa: ANN401  (the result of the queue's method)
        """Return the result of *work* with the selected queue."""

        async def with_client(client: Client) -> Any:  # noqa: ANN401
            return await work(client.default if self.queue is None else client.queue(self.queue))

        return self.run(self.address, with_client, self.tls)

    @property
    def queue_name(self) -> str:
        """Return the name of the selected queue."""
        return DEFAULT_QUEUE if self.queue is None else self.queue

    @property
    def queue_text(self) -> str:
        """Return the name of the selected queue as printable text."""
        return printable(self.queue_name.encode(errors="surrogateescape"))

    def control(
        self,
        work: "Callable[[QueueControl], Awaitable[T]]",
        *,
        needs_queue: bool = False,
        is_empty: Callable[[T], bool] = lambda _: False,
    ) -> T:
        """
        Return the result of *work* with the control of the selected queue, within the time limit.

        If it *needs_queue*, its existence is checked first, or afterwards if the result *is_empty*.

        Raises:
            click.ClickException: the queue does not exist.
        """

        async def with_client(client: Client) -> T:
            if needs_queue:
                await self.check_queue(client)
            result = await work(client.control(self.queue_name))
            if is_empty(result):
                await self.check_queue(client)
            return result

        result: T = self.run(self.address, with_client, self.tls, in_seconds(self.timeout_ms))
        return result

    async def check_queue(self, client: Client) -> None:
        """
        Check that the selected queue exists, unless `if_exists` is set.

        The default queue always does, and so does one with waiting polls.

        Raises:
            click.ClickException: it does not.
        """
        if self.if_exists or self.queue_name == DEFAULT_QUEUE:
            return
        name = self.queue_name
        listed = (await client.queues(name, limit=1)).found
        if [each.name for each in listed] == [name] or (await client.control(name).stats()).waiting_polls:
            return
        raise click.ClickException(f"there is no queue '{self.queue_text}'")

    def rendered(self, found: Mapping[str, Any], text: str) -> str:
        """Return *found* as JSON on one line if that is wanted, else *text*."""
        return json.dumps(found) if self.as_json else text

    def show(self, found: Mapping[str, Any], text: str) -> None:
        """Print *found* as JSON, or *text*."""
        click.echo(self.rendered(found, text))

    def show_outcome(self, found: Mapping[str, Any], done: str | None, problem: str) -> None:
        """Print *found* as JSON, or the line *done*.  Without *done*, print the *problem*, and exit with 1."""
        if self.as_json or done is not None:
            self.show(found, done or "")
        else:
            click.echo(f"queueber: {problem}", err=True)
        if done is None:
            sys.exit(EXIT_ERROR)


def in_seconds(ms: int | None) -> float | None:
    """Return a time limit in seconds; None stays None."""
    return None if ms is None else ms / MS_PER_SECOND


def _options(*, hidden: bool) -> list[click.Option]:
    """
    Return the options, visible in the help of the group and *hidden* in that of its commands.

    Only those of the group have defaults and variables, so that options after the command take precedence.
    """

    def option(name: str, variable: str, *names: str, **more: Any) -> click.Option:  # noqa: ANN401
        known: dict[str, Any] = {"hidden": True} if hidden else {"envvar": f"QUEUEBER_{variable}", "show_envvar": True}
        return click.Option((name, *names), **more, **known)

    default = {} if hidden else {"default": ADDRESS_DEFAULT, "show_default": True}
    return [
        option(
            "--addr",
            "ADDR",
            "address",
            metavar="ADDRESS",
            help="The server: HOST:PORT, [IPv6]:PORT, a Twisted endpoint, or a URL such as queueber://HOST:PORT/QUEUE.",
            **default,
        ),
        option("--queue", "QUEUE", metavar="NAME", help="The queue; by default the server's default queue."),
        option(
            "--tls",
            "TLS",
            "tls_wanted",
            is_flag=True,
            help="Use TLS, and trust the authorities of the operating system.",
        ),
        option(
            "--tls-ca", "TLS_CA", type=PATH, metavar="FILE", help="Use TLS, and trust the authorities in this file."
        ),
        # Not TLS_CERTIFICATE and TLS_KEY, which belong to a server that may run in the same environment.
        option(
            "--tls-certificate",
            "CLIENT_CERTIFICATE",
            type=PATH,
            metavar="FILE",
            help="Use TLS with this client certificate.",
        ),
        option(
            "--tls-key",
            "CLIENT_KEY",
            type=PATH,
            metavar="FILE",
            help="Key of the client certificate, if it is in another file.",
        ),
        option(
            "--tls-server-name",
            "TLS_SERVER_NAME",
            metavar="NAME",
            help="Name in the server's certificate, if it differs from the host.",
        ),
    ]


SERVER_OPTIONS: Final = _options(hidden=False)


class ServerCommand(click.Command):
    """A command that accepts the options of the server too.  Its ``obj`` is the `ServerSelection`."""

    left_out: frozenset[str] = frozenset()
    """Options of the server, by name, in whose place the command has its own."""

    added: tuple[click.Option, ...] = ()
    """Further options that are fields of `ServerSelection`."""

    def __init__(self, name: str | None, **attributes: Any) -> None:  # noqa: ANN401  (click's)
        """Take the arguments of `click.Command`."""
        super().__init__(name, epilog=_EPILOG, **attributes)
        self._own = [*self.added, *(each for each in _options(hidden=True) if each.name not in self.left_out)]
        self.params.extend(self._own)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401
        """Run the command with the server that the options select."""
        given = {}
        for option in self._own:
            name = str(option.name)
            value = ctx.params.pop(name)
            if ctx.get_parameter_source(name) in {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT}:
                given[name] = value
        if given:
            ctx.obj = ctx.obj._replace(**given)
        if ctx.obj.queue is None and "://" in ctx.obj.address:
            ctx.obj = ctx.obj._replace(queue=_queue_of(ctx.obj.address))
        return super().invoke(ctx)


class ResultsCommand(ServerCommand):
    """A command that runs for some time, prints results, and accepts ``--json``."""

    added = (_JSON,)


class CallCommand(ServerCommand):
    """A command that prints the outcome of calls, and accepts ``--json`` and ``--timeout``."""

    added: tuple[click.Option, ...] = (_JSON, _TIMEOUT)


class QueueCommand(CallCommand):
    """A command about a queue that exists.  It accepts ``--if-exists``, too."""

    added = (*CallCommand.added, _IF_EXISTS)


def _queue_of(url: str) -> str | None:
    """
    Return the name of the queue in *url*, or None.

    Raises:
        click.UsageError: the URL is invalid.
    """
    try:
        return target_of(url).queue
    except InvalidRequest as why:
        raise click.UsageError(f"--addr: {why}") from None


def queue_argument(*, required: bool = False) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """
    Add the argument QUEUE to a `ServerCommand`, as another way to give ``--queue``.  Its argument *server* has it.

    If it is *required*, the default queue is used only by its name.
    """

    def decorate(command: Callable[..., T]) -> Callable[..., T]:
        @click.argument("name", metavar="QUEUE" if required else "[QUEUE]", required=False)
        @click.pass_context
        @wraps(command)
        def with_queue(ctx: click.Context, /, name: str | None, **more: Any) -> T:  # noqa: ANN401
            server = select_queue(ctx, name)
            if required and server.queue is None:
                raise click.UsageError("Missing argument 'QUEUE'.")
            return command(server=server, **more)

        return with_queue

    return decorate


def select_queue(ctx: click.Context, name: str | None) -> ServerSelection:
    """
    Return the server with the queue *name*, the argument of a command; None selects that of the options.

    Raises:
        click.UsageError: an option on the command line names another queue.
    """
    server: ServerSelection = ctx.obj
    if name is None:
        return server
    given = any(
        each is not None and each.get_parameter_source("queue") is ParameterSource.COMMANDLINE
        for each in (ctx, ctx.parent)
    )
    if given and server.queue != name:
        raise click.UsageError(f"QUEUE is {name!r} and --queue is {server.queue!r}: give one of them.")
    return server._replace(queue=name)
