"""One worker process of ``queueber work``: makes the worker that the options describe, and runs it."""

import asyncio
import logging
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import click

from queueber.cli.commands import EXIT_INTERRUPTED
from queueber.cli.work_channel import ENDING, POLLED, READY, REFUSED, WorkerEnd
from queueber.cli.work_command import CommandHandler
from queueber.cli.work_options import Limit, WorkOptions, queue_in
from queueber.cli.work_report import Reporter, log_to
from queueber.cli.work_stop import END_SECONDS, Stopper
from queueber.cli.work_supervisor import EXIT_ERROR, EXIT_REFUSED, EXIT_STOPPED
from queueber.cli.work_target import load
from queueber.errors import InvalidRequest, QueueberError, one_line
from queueber.units import MS_PER_SECOND, rounded_span
from queueber.values import Action, id_text
from queueber.worker import Verdict, Worker, WorkItem
from queueber.worker.exit_guard import FLUSH_SECONDS, HANDLERS_SECONDS, ExitGuard

LOG = logging.getLogger("queueber.work")

LOOK_SECONDS: Final = 0.5
"""Time between two looks at a worker that has a supervisor."""

DRAIN_SECONDS: Final = 600.0
"""Time for the running items of a process that will be replaced, unless there is a longest run time."""

THREADS_SECONDS: Final = 4.0
"""Time for threads of the program to end, once the worker has ended."""

HURRIED_SECONDS: Final = 2.0
"""This time, and that of exit handlers, after a second signal, and if the worker could not begin."""

LEAVE_SECONDS: Final = THREADS_SECONDS + HANDLERS_SECONDS + FLUSH_SECONDS
"""Time for the process to end, once the worker has ended."""

KILL_SECONDS: Final = 10.0
"""Time beyond its longest run time in which a command is ended by its handler, before the worker gives that up."""


OUTCOMES: Final = {
    Action.REMOVE: "removed",
    Action.FAIL: "failed",
    Action.DEFER: "deferred",
    Action.REJECT: "rejected",
}


@runtime_checkable
class App(Protocol):
    """A `queueber.tasks.Tasks`, or a program's own object like it."""

    url: str
    queues: Mapping[str, int]

    def worker(self, **options: Any) -> Worker:  # noqa: ANN401
        """Return a worker."""

    def scheduler(self) -> AbstractContextManager[object]:
        """Return the scheduler of its periodic tasks; raise `InvalidRequest` if it has none."""


def run_worker(options: WorkOptions, reporter: Reporter, supervisor: WorkerEnd | None) -> None:
    """
    Run a worker until it is stopped.

    Ends the process with `EXIT_REFUSED` if the server refuses the first poll.

    Raises:
        click.ClickException: the target cannot be used.
        QueueberError: an option cannot be used.
    """
    worker, schedule = _begin(options, reporter, supervisor)
    if supervisor is None or not supervisor.slot:
        reporter.banner(options.target or shlex.join(options.command), worker.server, worker.queues)
    guard = ExitGuard("a handler or a thread does not end, so the process is ended")
    leave = partial(guard.arm, EXIT_STOPPED, threads=0)
    stopper = Stopper(worker, options.grace, supervised=supervisor is not None, leave=leave, exit_now=guard.exit_now)
    stopper.take_charge()
    with schedule:
        if supervisor is not None:
            supervisor.send(READY)
            supervisor.watch(stopper.force, stopper.supervisor_gone)
            watch = partial(_watch, worker, options, supervisor, stopper)
            threading.Thread(target=watch, name="worker-watch", daemon=True).start()
        # A worker of functions, too, which then leaves signals to the stopper.
        # A command goes on when its worker is killed: another one begins after the grace, and not at once.
        session = None if supervisor is None or options.command else supervisor.session
        status = asyncio.run(_run(worker, session, supervisor, stopper, guard))
    if status:
        sys.exit(status)


def _begin(
    options: WorkOptions, reporter: Reporter, supervisor: WorkerEnd | None
) -> tuple[Worker, AbstractContextManager[object]]:
    """
    Return the worker and its scheduler, as `make_worker`, once its health can be seen.

    Ends the process if its port cannot be opened, and a supervisor prints the reason.
    """
    before = set(threading.enumerate())
    try:
        worker, schedule = make_worker(options)
        # Not before: `logging.basicConfig` of the program does nothing once there is a handler.
        log_to(reporter, logging.WARNING if options.quiet else logging.INFO)
        try:
            worker.show_health(supervisor.slot if supervisor is not None and options.processes > 1 else None)
        except InvalidRequest as why:
            if supervisor is None:
                raise
            supervisor.send(REFUSED, one_line(str(why)))
            sys.exit(EXIT_ERROR)
    except BaseException as why:
        if not all(each.daemon for each in set(threading.enumerate()) - before):
            # Threads of the module, which may never end.  The guard prints nothing: the reason is the last line.
            status = EXIT_INTERRUPTED if isinstance(why, KeyboardInterrupt) else EXIT_ERROR
            ExitGuard("").arm(status, threads=HURRIED_SECONDS, handlers=HURRIED_SECONDS)
        raise
    return worker, schedule


async def _run(
    worker: Worker, session: bytes | None, supervisor: WorkerEnd | None, stopper: Stopper, guard: ExitGuard
) -> int:
    """
    Run *worker* in *session*, or in one of its own, and return the exit status.

    Arms *guard* at the end: the loop waits for threads, too.
    """
    status = EXIT_ERROR
    try:
        await (worker.run_async() if session is None else worker.run_async(session))
        status = EXIT_STOPPED
    except QueueberError as why:
        status = EXIT_REFUSED if worker.refused else EXIT_ERROR
        if worker.refused and supervisor is not None:
            supervisor.send(REFUSED, one_line(str(why)))
        else:
            click.echo(f"queueber: {one_line(str(why))}", err=True)
    finally:
        if stopper.forced:
            guard.arm(status, threads=HURRIED_SECONDS, handlers=HURRIED_SECONDS)
        else:
            guard.arm(status, threads=THREADS_SECONDS)
        stopper.worker_ended()
    return status


def make_worker(options: WorkOptions) -> tuple[Worker, AbstractContextManager[object]]:
    """
    Return the worker that *options* describe, and the scheduler of periodic tasks, which does nothing without any.

    Raises:
        click.ClickException: the target cannot be used.
        QueueberError: an option cannot be used.
    """
    settings = dict(options.settings)
    if options.verbose:
        settings |= _hooks()
    if options.command:
        handler = CommandHandler(
            options.command,
            max_runtime=settings.get("max_runtime"),
            defer_seconds=options.defer_seconds,
            quiet=options.discard_output,
        )
        # A prefetched item waits for the command before it, and other workers may be idle.
        settings = {"concurrency": 1, "prefetch": 0, **settings}
        if "max_runtime" in settings:
            # Ends a command that the handler cannot end.
            settings["max_runtime"] += KILL_SECONDS
        return _of_handler(handler.handle, options, settings), nullcontext()
    found = load(options.target, options.folder)
    if isinstance(found, Worker):
        given = ["--queue"] * bool(options.queues) + [f"--{name.replace('_', '-')}" for name in options.settings]
        if given:
            raise click.UsageError(
                f"{options.target} is a Worker, which has settings of its own: {', '.join(given)} cannot be given."
            )
        return found, nullcontext()
    if isinstance(found, App):
        return _of_app(found, options, settings)
    if type(found).__module__.startswith("queueber.tasks."):
        raise click.UsageError(f"{options.target} is a single task; give the Tasks app that has it.")
    if isinstance(found, type) or not callable(found):
        kind = f"a class, {found.__name__}" if isinstance(found, type) else f"of the type {type(found).__name__}"
        raise click.ClickException(
            f"{options.target} is {kind}; it must be a Tasks, a Worker, or a function that takes one item"
        )
    return _of_handler(found, options, settings), nullcontext()


def _of_handler(handler: Callable[[WorkItem], Any], options: WorkOptions, settings: dict[str, Any]) -> Worker:
    queue = queue_in(options.url)
    queues = options.queues or ([] if queue is None else [queue])
    if not queues:
        raise click.UsageError("Missing option '--queue': a function or a command has no queue of its own.")
    return Worker(options.url, handler, queues=queues, **settings)


def _of_app(app: App, options: WorkOptions, settings: dict[str, Any]) -> tuple[Worker, AbstractContextManager[object]]:
    if options.url_given:
        app.url = options.url
    unknown = [each for each in options.queues if each not in app.queues]
    if unknown:
        raise click.UsageError(
            f"{options.target} has no tasks in the queue {unknown[0]!r}; it has some in {', '.join(app.queues)}."
        )
    if options.queues:
        # In this order, which counts with --strict.
        settings["queues"] = {name: app.queues[name] for name in options.queues}
    schedule: AbstractContextManager[object] = nullcontext()
    if options.scheduler:
        # It has no periodic tasks otherwise.
        with suppress(InvalidRequest):
            schedule = app.scheduler()
    return app.worker(**settings), schedule


def _hooks() -> dict[str, Any]:
    """Return the hooks of a worker that print a line for each item."""
    begun: dict[bytes, float] = {}

    def before(item: WorkItem) -> None:
        begun[item.id] = time.monotonic()

    def after(item: WorkItem, verdict: Verdict | None, _: BaseException | None) -> None:
        took = rounded_span((time.monotonic() - begun.pop(item.id, time.monotonic())) * MS_PER_SECOND)
        outcome = "cancelled" if verdict is None else OUTCOMES[verdict.action]
        LOG.info("item %s of %s %s after %s, attempt %d", id_text(item.id), item.queue, outcome, took, item.attempt)

    return {"before": [before], "after": [after]}


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _watch(worker: Worker, options: WorkOptions, supervisor: WorkerEnd, stopper: Stopper) -> None:
    """
    Report the first answered poll, and stop *worker* once it has done its share.

    Running items have time to end then, and no others are taken.
    """
    polled = False
    while not polled or options.limit != Limit():
        time.sleep(LOOK_SECONDS)
        health = worker.health
        if health.polls and not polled:
            polled = True
            supervisor.send(POLLED)
        items = health.removed + health.failed + health.deferred + health.rejected + health.lost
        why = options.limit.reached(items, resident_bytes())
        if why:
            seconds = options.settings.get("max_runtime", DRAIN_SECONDS)
            # Before the stop, so that the supervisor does not take it for a death.
            supervisor.send(ENDING, f"{seconds + END_SECONDS + LEAVE_SECONDS:g} {why}")
            stopper.drain(seconds)
            return
