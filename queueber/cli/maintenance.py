"""
Maintenance of data directories: ``queueber backup``, ``restore``, ``verify`` and ``recover``.

No command changes the directory it reads, and a replaced directory is kept
under another name.
"""

import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
from twisted.internet.task import LoopingCall

from queueber.cli.arguments import PATH
from queueber.cli.control_commands import EXIT_FINDINGS
from queueber.cli.data_directory import (
    EXIT_UNREADABLE,
    control_address,
    data_dir_option,
    directory_argument,
    exit_74_if_unreadable,
    is_served,
)
from queueber.cli.output import moment
from queueber.cli.server_options import ServerSelection, json_option
from queueber.cli.terminal import ByteProgressBar, check_can_confirm, confirm, yes_option
from queueber.client import Client
from queueber.client_core.errors import DifferentDirectory
from queueber.errors import one_line
from queueber.store import copy_directory, locked_shared, replace_directory, salvage
from queueber.store import verify as verify_directory
from queueber.store.datadir.directory import DATABASE, READY, shared_lock
from queueber.store.maintenance.recovery import Salvage, check_movable
from queueber.store.maintenance.verification import Verified
from queueber.units import counted

PROGRESS_CALL_SECONDS = 0.5


@click.command()
@click.argument("target", metavar="DIR", type=PATH)
@data_dir_option
@click.pass_obj
def backup(server: ServerSelection, target: Path, data_dir: Path) -> None:
    """
    Back up everything a server has committed so far to DIR, which must be missing or empty.

    A running server keeps serving and writes DIR itself.  It needs the permission to do so, and must see the same
    directory at that path as this command; otherwise the exit status is 74.  Without a running server the data
    directory is verified and copied.
    """
    if is_served(data_dir):
        with ByteProgressBar("Copying") as progress:

            async def work(client: Client) -> None:
                async def show_progress() -> None:
                    progress(*await client.admin.backup_progress())

                progress_calls = LoopingCall(show_progress)
                progress_calls.start(PROGRESS_CALL_SECONDS, now=False).addErrback(lambda _: None)
                try:
                    await client.admin.backup(target)
                finally:
                    if progress_calls.running:
                        progress_calls.stop()

            try:
                server.run(control_address(data_dir), work, concurrent=True)
            except DifferentDirectory as why:
                click.echo(one_line(f"queueber: {why}"), err=True)
                sys.exit(EXIT_UNREADABLE)
    else:
        with exit_74_if_unreadable():
            _check_sound(data_dir, "backed up")
            with ByteProgressBar("Copying") as progress:
                copy_directory(data_dir, target, progress)
    click.echo(one_line(f"backed up to {target}"))


@click.command()
@click.argument("source", metavar="BACKUP", type=PATH)
@click.argument("target", metavar="DIR", type=PATH)
@click.option("--replace", is_flag=True, help="Allow a DIR with data, which is kept under another name.")
@yes_option
def restore(source: Path, target: Path, replace: bool, yes: bool) -> None:
    """
    Restore BACKUP to DIR.  The backup is verified first and not changed.

    Items that were removed since the backup return, and leases are as they were then.  If DIR holds data, the
    command asks for confirmation.
    """
    # A link stays one, and `.` has a name.
    target = target.resolve()
    with exit_74_if_unreadable():
        taken = target.exists() and any(path.name not in {"lock", "lost+found"} for path in target.iterdir())
        if taken:
            # Checked first, because reading and copying the backup may take long.
            _check_replaceable(target, replace=replace)
            check_can_confirm(yes=yes)
        found = _check_sound(source, "restored")
        click.echo(one_line(f"{source}: {_counts(found)} as of {moment(found.as_of)}"), err=True)
        kept = target.with_name(f"{target.name}.replaced-{_timestamp()}")
        if taken:
            confirm(
                one_line(f"The contents of {target} will be kept in {kept}.")
                + "  Items that were removed since then will be there again, those"
                " added since will not, and leases will be as they were then.  Restore it?",
                yes=yes,
            )
        made = target.with_name(f"{target.name}.restored-{_timestamp()}") if taken else target
        with ByteProgressBar("Copying") as progress:
            copy_directory(source, made, progress)
        if taken:
            try:
                replace_directory(target, made, kept)
            except BaseException:
                shutil.rmtree(made, ignore_errors=True)
                raise
            click.echo(one_line(f"the former contents of {target} are in {kept}"))
    click.echo(one_line(f"restored to {target}"))


@click.command()
@directory_argument
@json_option
def verify(data_dir: Path, as_json: bool) -> None:
    """
    Check every row of DIR and their consistency.  DIR is a backup, or a data directory without a running server.

    The exit status is 0 if DIR is sound, 1 if there are findings, 74 if DIR cannot be read.
    """
    with exit_74_if_unreadable():
        found = _verified(data_dir)
    total = len(found.findings) + found.more
    if as_json:
        click.echo(
            json.dumps(
                {
                    "sound": not found.findings,
                    "items": found.items,
                    "leases": found.leases,
                    "queues": found.queues,
                    "as_of_ms": found.as_of,
                    "findings": found.findings,
                    "findings_total": total,
                }
            )
        )
    else:
        _print_findings(found)
        leases, queues = counted(found.leases, "lease"), counted(found.queues, "queue")
        click.echo(
            f"{counted(found.items, 'item')}, {leases} and {queues} as of {moment(found.as_of)}: "
            + (counted(total, "finding") if found.findings else "nothing is wrong")
        )
    if found.findings:
        sys.exit(EXIT_FINDINGS)


def _check_sound(path: Path, done: str) -> Verified:
    """Verify *path* and return the result.  A directory with findings is not *done*."""
    found = _verified(path)
    if found.findings:
        _print_findings(found)
        raise click.ClickException(one_line(f"{path} is not {done}: it is not sound"))
    return found


def _verified(path: Path) -> Verified:
    with ByteProgressBar("Verifying") as progress:
        return verify_directory(path, progress)


def _print_findings(found: Verified) -> None:
    for finding in found.findings:
        click.echo(one_line(finding))
    if found.more:
        click.echo(f"and {found.more:,} more")


def _check_replaceable(target: Path, *, replace: bool) -> None:
    """Check that *target* may be replaced, before the backup is read and copied."""
    if not replace:
        raise click.ClickException(one_line(f"{target} is not empty; with --replace it is kept under another name"))
    if not (target / READY).exists() and not (target / DATABASE).is_dir():
        why = f"{target} is not a data directory of Queueber, and no other directory is replaced"
        raise click.ClickException(one_line(why))
    check_movable(target)
    with shared_lock(target):
        return


@click.command()
@click.argument("path", metavar="DIR", type=PATH)
@yes_option
def recover(path: Path, yes: bool) -> None:
    """
    Make DIR usable again if its log is damaged.  Show the loss first, and ask for confirmation.

    The command works on a copy and verifies it.  The damaged directory is kept under another name.
    """
    # A link stays one, and `.` has a name.
    path = path.resolve()
    recovered = path.with_name(f"{path.name}.recovered-{_timestamp()}")
    with exit_74_if_unreadable(), locked_shared(path):
        with ByteProgressBar("Verifying") as progress:
            found = salvage(path, recovered, progress)
        if found is None:
            shown = one_line(str(path))
            click.echo(f"a server can start on {shown} as it is; `queueber verify` checks whether all of it is sound")
            return
        try:
            _print_loss(found)
            confirm("Put what is left in its place?", yes=yes)
            kept = path.with_name(f"{path.name}.damaged-{_timestamp()}")
            replace_directory(path, recovered, kept)
        except BaseException:
            shutil.rmtree(recovered, ignore_errors=True)
            raise
    click.echo(one_line(f"{path} is usable again; the damaged one is {kept}"))


def _timestamp() -> str:
    """Return the current time as a suffix for unique file names."""
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S")


def _counts(found: Verified | Salvage) -> str:
    return f"{counted(found.items, 'item')} in {counted(found.queues, 'queue')}"


def _print_loss(found: Salvage) -> None:
    """Print what recovery loses."""
    click.echo(one_line(f"damage: {found.why}"))
    for dropped in found.dropped:
        click.echo(one_line(f"left out of the log: {dropped}"))
    click.echo(
        f"what is left: {_counts(found)} and {counted(found.leases, 'lease')}, as of"
        f" {moment(found.as_of)}; the last write is number {found.reached:,}"
    )
    if found.noted is None:
        click.echo("the length of the log was not noted: whether the lost writes were acknowledged is unknown")
    elif found.acknowledged_lost:
        click.echo(
            f"LOST: acknowledged writes.  Number {found.noted:,} was on disk, so at least"
            f" {counted(found.acknowledged_lost, 'row write')} {'is' if found.acknowledged_lost == 1 else 'are'} gone"
        )
    else:
        click.echo(
            f"nothing that is known to have been acknowledged is lost: the log is noted to have been on disk up to"
            f" {found.noted:,}; what was acknowledged in the second after that note may be"
        )
