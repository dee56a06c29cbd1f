"""``queueber work``: run workers for tasks, for a function, or for a command per item."""

import logging
import shutil
import sys
from pathlib import Path
from typing import Any, Final

import click

from queueber.cli.server_options import ServerCommand, ServerSelection
from queueber.cli.work_channel import WorkerEnd
from queueber.cli.work_options import (
    DEFER_SECONDS,
    WORKER_SETTINGS,
    Limit,
    WorkOptions,
    command_options,
    process_options,
    queue_in,
    url_of,
    worker_options,
)
from queueber.cli.work_report import Reporter
from queueber.client_core.address import PORT_MAX

STOP_EXTRA_SECONDS: Final = 25.0
"""Time beyond its grace that a process has to end: it cancels handlers, sends results, and runs exit handlers."""


class WorkCommand(ServerCommand):
    """A command that takes any number of queues, and a command per item after ``--``."""

    left_out = frozenset({"queue"})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words after ``--``, which click would join with the other arguments."""
        at = args.index("--") if "--" in args else len(args)
        rest = super().parse_args(ctx, args[:at])
        ctx.params["command"] = tuple(args[at + 1 :]) if at < len(args) else None
        return rest


@click.command(cls=WorkCommand)
@click.argument("target", metavar="[MODULE:OBJECT | -- CMD ARG...]", default="")
@worker_options
@process_options
@command_options
@click.option("-v", "--verbose", is_flag=True, help="Print a line for each item.")
@click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only.")
@click.pass_obj
def work(server: ServerSelection, /, **given: Any) -> None:  # noqa: ANN401  (the options)
    """
    Run workers until a signal.

    MODULE:OBJECT is a queueber.tasks.Tasks, a queueber.worker.Worker, or with --queue a function or coroutine function
    that takes an item.  Modules in the working directory are found, too.

    A command after -- is run for each item, with the contents on standard input, and QUEUEBER_ITEM_ID, QUEUEBER_QUEUE,
    QUEUEBER_ATTEMPT and others in the environment.  Status 0 removes the item, 75 defers it, and any other status or a
    signal fails it, with the last lines of standard error.

    At SIGTERM or Ctrl-C running items have --grace to end, all others return to their queues, and the exit status is 0.
    A second signal ends running items at once, and counts no attempt.  With --processes, --recycle-after or --reload,
    SIGHUP replaces the processes; otherwise it stops them too.

    The exit status is 78 if the server refuses the first poll, for a reason that a restart does not change.
    """
    options = _work_options(server, given)
    supervisor = WorkerEnd.from_environment()
    reporter = Reporter("" if supervisor is None else f"worker {supervisor.slot + 1}")
    if supervisor is None and (given["processes"] > 1 or given["reload"] or options.limit != Limit()):
        sys.exit(_supervise(reporter, given["processes"], options.grace, reload=given["reload"]))
    # Imported here, because --help and the supervisor do without it.
    from queueber.cli.work_worker import run_worker  # noqa: PLC0415

    run_worker(options, reporter, supervisor)


def _work_options(server: ServerSelection, given: dict[str, Any]) -> WorkOptions:
    """
    Return the options of one process.

    Raises:
        click.UsageError: they contradict each other, or one is missing.
    """
    command, target = given["command"], given["target"]
    port, processes = given["http_port"], given["processes"]
    if port is None and given["http_host"] is not None:
        raise click.UsageError("--http-host needs --http-port.")
    if port is not None and port + processes - 1 > PORT_MAX:
        raise click.UsageError(f"--http-port {port} with {processes} processes needs ports above {PORT_MAX}.")
    if command is not None and target:
        raise click.UsageError(f"Give {target} or a command after --, not both.")
    if not command and not target:
        raise click.UsageError("Give MODULE:OBJECT, or a command after --.")
    if command and shutil.which(command[0]) is None:
        raise click.UsageError(f"There is no command {command[0]!r} that can be run.")
    if not command and (given["defer_seconds"] is not None or given["discard_output"]):
        raise click.UsageError("--defer and --discard-output are for a command after --.")
    url, url_given = url_of(server, given["url"])
    # A queue that stands in the URL is no choice among those of a `Tasks`.
    queues = given["queues"] or (() if server.queue in {None, queue_in(url)} else (str(server.queue),))
    return WorkOptions(
        target=target,
        command=command or (),
        url=url,
        url_given=url_given,
        processes=processes,
        queues=queues,
        settings={name: given[name] for name in WORKER_SETTINGS if given[name] is not None},
        grace=given["grace"],
        defer_seconds=DEFER_SECONDS if given["defer_seconds"] is None else given["defer_seconds"],
        discard_output=given["discard_output"],
        scheduler=not given["no_scheduler"],
        verbose=given["verbose"],
        quiet=given["quiet"],
        limit=given["limit"],
    )


def _supervise(reporter: Reporter, processes: int, grace: float, *, reload: bool) -> int:
    """Run *processes* of this command under a supervisor; return the exit status."""
    from queueber.cli.work_processes import Processes, SourceFiles  # noqa: PLC0415
    from queueber.cli.work_supervisor import Supervisor  # noqa: PLC0415

    def say(text: str, alarm: bool) -> None:
        reporter.say(text, logging.WARNING if alarm else logging.INFO)

    supervisor = Supervisor(processes=processes, stop_seconds=grace + STOP_EXTRA_SECONDS, reload=reload)
    command = [sys.executable, "-m", "queueber.cli", *sys.argv[1:]]
    return Processes(supervisor, command, say, SourceFiles(Path.cwd()) if reload else None).run()
