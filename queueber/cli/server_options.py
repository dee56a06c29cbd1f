"""Options that select the server and the queue, accepted before and after the name of a command."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from attrs import evolve, frozen
from click.core import ParameterSource

from queueber.cli.arguments import PATH
from queueber.client import Client, Queue, Tls

T = TypeVar("T")

Runner = Callable[..., Any]
"""Run work against the server at an address: `queueber.cli.session.run`, or a replacement in tests."""

ADDRESS_DEFAULT: Final = "127.0.0.1:9090"

_EPILOG = "The options of `queueber` itself, such as --addr, --queue and --tls-ca, are accepted here too."


@frozen(kw_only=True)
class ServerSelection:
    """The server and queue that the options select.  The fields after `run` have the names of the options."""

    run: Runner
    addr: str
    queue: str | None = None
    tls_wanted: bool = False
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_server_name: str | None = None

    @property
    def address(self) -> str:
        """Return the address of the server."""
        return self.addr

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
            metavar="ADDRESS",
            help="The server: HOST:PORT, [IPv6]:PORT or a Twisted endpoint.",
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

    def __init__(self, name: str | None, **attributes: Any) -> None:  # noqa: ANN401  (click's)
        """Take the arguments of `click.Command`."""
        super().__init__(name, epilog=_EPILOG, **attributes)
        self._own = _options(hidden=True)
        self.params.extend(self._own)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401
        """Run the command with the server that the options select."""
        given = {}
        for option in self._own:
            name = str(option.name)
            value = ctx.params.pop(name)
            if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                given[name] = value
        if given:
            ctx.obj = evolve(ctx.obj, **given)
        return super().invoke(ctx)
