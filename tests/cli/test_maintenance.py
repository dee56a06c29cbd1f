"""The maintenance commands, on real directories."""

import errno
import json
import os
import re
import shutil
import socket
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from twisted.internet.defer import ensureDeferred, succeed

from queueber.api.admin import Checked, ServerStats
from queueber.broker.model import LOWEST, Item, ItemId, Key, LeaseId, LeaseRecord, QueueNumber, QueueRecord, TimeMark
from queueber.broker.storage import PutItems, PutLease, PutQueue, PutRetired, PutSettings
from queueber.cli.__main__ import queueber
from queueber.cli.output import moment
from queueber.cli.terminal import PROGRESS_DELAY_SECONDS, ByteProgressBar
from queueber.client_core.errors import DifferentDirectory
from queueber.server.core.clock import read_boot_id, read_boot_time
from queueber.store import open_store, verify
from queueber.store.datadir.synced import SyncedFile
from queueber.units import WallMs

MAIL = QueueNumber(1)
COMMITS = 20


class Server:
    """A running server, as its administrative client sees it."""

    def __init__(self):
        self.asked = []
        self.findings = []
        self.admin = SimpleNamespace(
            stats=lambda: succeed(
                ServerStats(version="9", uptime_ms=1500, items=7, free_bytes=1 << 30, limit_hits={"queues": 2})
            ),
            check=self.check,
            backup=self.backup,
            backup_progress=lambda: succeed((0, 0)),
        )

    def check(self, *, force):
        self.asked.append(force)
        return succeed(Checked(self.findings, 3))

    def backup(self, target):
        self.asked.append(target)
        return succeed(None)

    def run(self, address, work, tls=None, seconds=None, *, concurrent=False):
        self.asked.append(address)
        results = []
        ensureDeferred(work(self)).addBoth(results.append)
        return results[0]


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def shell(server):
    def shell(*arguments, answer="", **environment):
        return CliRunner(env=environment).invoke(queueber, list(map(str, arguments)), input=answer, obj=server.run)

    return shell


def item(number):
    return Item(Key(WallMs(number), ItemId(number.to_bytes(16, "big"))), b"contents", WallMs(5))


def make(path, close=True):
    store = open_store(path)
    for number in range(1, COMMITS + 1):
        store.commit(
            [
                PutItems(MAIL, [item(number)]),
                PutQueue(QueueRecord(MAIL, "mail", number, 0, LOWEST, 8 * number, off_time=number)),
            ],
            TimeMark(b"b" * 16, 1, WallMs(1_800_000_000_000)),
        )
        if number == COMMITS // 2:
            store.note_synced()
    lease = LeaseRecord(MAIL, WallMs(99), (item(1).key,))
    store.commit([PutLease(LeaseId(b"l" * 16), lease)], TimeMark(b"b" * 16, 1, WallMs(1_800_000_000_000)))
    if close:
        store.close()
    return store


# Copies of directories, because a copy takes less time than a database does to be made.


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    path = tmp_path_factory.mktemp("stopped") / "data"
    make(path)
    return path


@pytest.fixture
def data(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "data")


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The directory of a killed server, with one bit of its log changed after the part that is known to be on disk."""
    folder = tmp_path_factory.mktemp("killed")
    live = make(folder / "live", close=False)
    path = folder / "data"
    path.mkdir()
    (path / "db").mkdir()
    for file in (folder / "live").rglob("*"):
        if file.is_file():
            (path / file.relative_to(folder / "live")).write_bytes(file.read_bytes())
    live.close()
    (log,) = [file for file in (path / "db").glob("*.log") if file.stat().st_size]
    content = bytearray(log.read_bytes())
    content[int(len(content) * 0.8)] ^= 1
    log.write_bytes(content)
    return path


@pytest.fixture
def damaged(killed, tmp_path):
    return shutil.copytree(killed, tmp_path / "data")


def content_of(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


class TestBackup:
    def test_a_running_server_makes_the_backup_itself(self, shell, server, tmp_path, monkeypatch):
        monkeypatch.setattr("queueber.cli.maintenance.is_served", lambda _: True)
        monkeypatch.setattr(Path, "is_socket", lambda path: True)
        done = shell("backup", tmp_path / "backup", "--data-dir", tmp_path / "da:ta")
        assert (done.output, done.exit_code) == (f"backed up to {tmp_path / 'backup'}\n", 0)
        assert server.asked == [f"unix:path={tmp_path}/da\\:ta/control.sock", tmp_path / "backup"]

    def test_a_backup_in_another_directory_ends_with_74(self, shell, server, tmp_path, monkeypatch):
        monkeypatch.setattr("queueber.cli.maintenance.is_served", lambda _: True)
        monkeypatch.setattr(Path, "is_socket", lambda path: True)

        def run(*_, concurrent):
            raise DifferentDirectory("/b is another directory")

        server.run = run
        done = shell("backup", tmp_path / "backup", "--data-dir", tmp_path / "data")
        assert (done.output, done.exit_code) == ("queueber: /b is another directory\n", 74)

    def test_the_socket_of_one_that_was_killed_is_no_server(self, shell, server, data, tmp_path):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(data / "control.sock"))
        done = shell("backup", tmp_path / "backup", "--data-dir", data)
        assert (done.output, done.exit_code) == (f"backed up to {tmp_path / 'backup'}\n", 0)
        assert not server.asked

    def test_a_stopped_one_is_copied(self, shell, server, data, tmp_path):
        done = shell("backup", tmp_path / "backup", QUEUEBER_DATA_DIR=str(data))
        assert (done.output, done.exit_code) == (f"backed up to {tmp_path / 'backup'}\n", 0)
        assert verify(tmp_path / "backup").items == COMMITS
        assert server.asked == []

    def test_an_unsound_directory_is_not_backed_up(self, shell, data, tmp_path):
        store = open_store(data)
        store.commit([PutItems(QueueNumber(9), [item(50)])], TimeMark(b"b" * 16, 1, WallMs(1)))
        store.close()
        done = shell("backup", tmp_path / "backup", "--data-dir", data)
        assert done.exit_code == 1
        assert "queue 9, which does not exist" in done.output
        assert "is not backed up: it is not sound" in done.output
        assert not (tmp_path / "backup").exists()

    def test_a_directory_that_lacks_a_file_is_not_sound(self, shell, data, tmp_path):
        (table, *_) = (data / "db").glob("*.sst")
        table.unlink()
        done = shell("backup", tmp_path / "backup", "--data-dir", data)
        assert done.exit_code == 74
        assert "backed up to" not in done.output
        assert not (tmp_path / "backup").exists()

    def test_a_backup_that_fails_ends_with_74(self, shell, tmp_path):
        done = shell("backup", tmp_path / "backup", "--data-dir", tmp_path / "nothing")
        assert (done.output.count("\n"), done.exit_code) == (1, 74)


class TestVerify:
    def test_sound(self, shell, data):
        done = shell("verify", data)
        line = "20 items, 1 lease and 1 queue as of 2027-01-15T08:00:00+00:00: nothing is wrong\n"
        assert (done.output, done.exit_code) == (line, 0)

    def test_with_findings(self, shell, data):
        store = open_store(data)
        store.commit([PutItems(QueueNumber(9), [item(50)])], TimeMark(b"b" * 16, 1, WallMs(2**60)))
        store.close()
        done = shell("verify", data)
        assert done.exit_code == 1
        finding, last = done.output.splitlines()
        assert "it belongs to queue 9, which does not exist" in finding
        assert last.endswith(f"as of {2**60} ms: 1 finding")

    def test_more_findings_than_anybody_reads(self, shell, data):
        store = open_store(data)
        store.commit(
            [PutItems(QueueNumber(9), [item(50 + n) for n in range(1_005)])], TimeMark(b"b" * 16, 1, WallMs(1))
        )
        store.close()
        lines = shell("verify", data).output.splitlines()
        assert (len(lines), lines[-2]) == (1_002, "and 5 more")

    def test_unreadable(self, shell, tmp_path):
        done = shell("verify", tmp_path)
        assert done.exit_code == 74
        assert "'QUEUEBER' is missing" in done.output

    def test_json(self, shell, data):
        found = json.loads(shell("verify", data, "--json").output)
        assert found == {
            "sound": True,
            "items": COMMITS,
            "leases": 1,
            "queues": 1,
            "as_of_ms": 1_800_000_000_000,
            "findings": [],
            "findings_total": 0,
        }

    def test_json_of_findings(self, shell, data):
        store = open_store(data)
        store.commit([PutItems(QueueNumber(9), [item(50)])], TimeMark(b"b" * 16, 1, WallMs(1)))
        store.close()
        done = shell("verify", data, "--json")
        found = json.loads(done.output)
        assert (done.exit_code, found["sound"], found["findings_total"]) == (1, False, len(found["findings"]))
        assert any("queue 9, which does not exist" in finding for finding in found["findings"])


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_a_directory_may_be_named_by_argument_option_and_environment(shell, data, tmp_path, command):
    said = shell(command, data)
    assert said.exit_code == 0
    assert shell(command, "--data-dir", data).output == shell(command, "-d", data).output == said.output
    assert shell(command, QUEUEBER_DATA_DIR=str(data)).output == said.output
    assert shell(command, data, QUEUEBER_DATA_DIR=str(tmp_path)).output == said.output
    both = shell(command, data, "-d", tmp_path)
    assert (both.exit_code, both.output) == (
        1,
        f"queueber: DIR is {data} and --data-dir is {tmp_path}: give one of them.\n",
    )


def test_a_path_with_control_characters_is_printed_escaped_on_one_line(shell, damaged, tmp_path):
    odd, shown = "a\nb\x1b[2J", r"a\nb\x1b[2J"
    make(tmp_path / odd)
    copy, bad = tmp_path / f"{odd}-2", tmp_path / f"{odd}-3"
    damaged.rename(bad)
    for command, lines in (
        (("verify", tmp_path / odd / "none"), 1),
        (("inspect", tmp_path / odd), 3),
        (("inspect", tmp_path / odd / "none"), 1),
        (("backup", copy, "--data-dir", tmp_path / odd), 1),
        (("restore", copy, tmp_path / odd), 1),
        (("restore", copy, tmp_path / odd, "--replace", "--yes"), 3),
        (("recover", copy, "--yes"), 1),
        (("recover", bad, "--yes"), None),
    ):
        done = shell(*command)
        printed = done.output.splitlines()
        assert shown in done.output, command
        assert all(line.isprintable() for line in printed), command
        assert lines in {None, len(printed)}, (command, printed)


def copy_if_there(source, target):
    with suppress(FileNotFoundError):
        shutil.copy2(source, target)


class TestInspect:
    def test_json(self, shell, data):
        found = json.loads(shell("inspect", data, "--json").output)
        assert (found["state"], found["format"], found["last_commit_ms"]) == ("stopped in order", 2, 1_800_000_000_000)
        (queue,) = found["queues"]
        assert queue == {
            "name": "mail",
            "dead": False,
            "items": 20,
            "ready": 19,
            "delayed": 0,
            "leased": 1,
            "leases": 1,
            "added": 20,
            "removed": 0,
            "bytes": 160,
            "settings": {},
        }
        assert found["retired_queues"] == 0

    def test_dead_items_settings_and_retired_queues(self, shell, data):
        with closing(open_store(data)) as store:
            store.commit(
                [
                    PutQueue(QueueRecord(QueueNumber(2), "mail", 0, 0, LOWEST, dead_of=MAIL)),
                    PutSettings(MAIL, {"maxAttempts": 3}),
                    PutRetired(QueueNumber(3), MAIL),
                ],
                TimeMark(b"b" * 16, 1, WallMs(1_800_000_000_000)),
            )
        first, second = json.loads(shell("inspect", data, "--json").output)["queues"]
        assert (first["dead"], first["settings"], second["dead"]) == (False, {"maxAttempts": 3}, True)
        _, _, _, configured, dead, retired = shell("inspect", data).output.splitlines()
        assert configured == '  configured: {"maxAttempts": 3}'
        assert dead.startswith('dead items of queue "mail": 0 items, 0 bytes,')
        assert retired == "the items of 1 queue that was purged or deleted remain"
        assert len(json.loads(shell("inspect", data, "--queue", "mail", "--json").output)["items"]) > 1

    def test_json_of_items(self, shell, data):
        found = json.loads(shell("inspect", data, "--queue", "mail", "--limit", 1, "--contents", "--json").output)
        assert found == {
            "items": [
                {
                    "id": "00000000-0000-0000-0000-000000000001",
                    "state": "leased",
                    "due_ms": 1,
                    "added_at_ms": 5,
                    "attempts": 0,
                    "bytes": 8,
                    "contents": "contents",
                    "encoding": "utf-8",
                }
            ]
        }
        assert "contents" not in json.loads(shell("inspect", data, "--queue", "mail", "--json").output)["items"][0]

    def test_a_directory(self, shell, data):
        before = content_of(data)
        done = shell("inspect", "-d", data)
        assert done.exit_code == 0
        first, second, queue = done.output.splitlines()
        assert "stopped in order; format 2;" in first
        assert "last commit 2027-01-15T08:00:00+00:00; writes up to " in second
        assert 'queue "mail": 20 items, 160 bytes, 19 ready, 0 delayed, 1 under 1 lease; 20 added' in queue
        assert content_of(data) == before

    def test_ready_and_delayed_are_judged_by_queue_time(self, shell, data, monkeypatch):
        """The clock was a year ahead when the server started, and was set right since: an hour's delay is an hour's."""
        year = 365 * 86_400_000
        mark = TimeMark(read_boot_id(), int(read_boot_time() * 1_000), WallMs(1_800_000_000_000 + year), WallMs(1))
        due = [Key(WallMs(mark.queue_time + delay), ItemId(bytes([n]) * 16)) for n, delay in ((1, 0), (2, 3_600_000))]
        with closing(open_store(data)) as store:
            store.commit([PutItems(MAIL, [Item(key, b"x", mark.queue_time)]) for key in due], mark)
        states = [
            item["state"]
            for item in json.loads(shell("inspect", data, "--queue", "mail", "--json", "--limit", 99).output)["items"]
        ]
        assert states[-2:] == ["ready", "delayed"]

    def test_a_backup_that_no_server_has_run_on_is_called_one(self, shell, data, tmp_path):
        with closing(open_store(data)) as store:
            store.backup(tmp_path / "backup")
        assert ": a backup, on which no server has run; format 2;" in shell("inspect", "-d", tmp_path / "backup").output
        open_store(tmp_path / "backup").close()
        assert ": stopped in order; format 2;" in shell("inspect", "-d", tmp_path / "backup").output

    def test_a_killed_server_is_reported(self, shell, data, tmp_path):
        with closing(open_store(data)):
            # The engine removes a log that it needs no more at a time of its own.
            shutil.copytree(data, tmp_path / "killed", copy_function=copy_if_there)
        (tmp_path / "killed" / "synced").unlink()
        first, second = shell("inspect", "-d", tmp_path / "killed").output.splitlines()[:2]
        assert ": its server ended without closing it; format 2;" in first
        assert second.endswith(", how many are on disk is noted nowhere")

    def test_a_server_that_ended_itself_after_a_failed_write_is_reported(self, shell, data):
        file = SyncedFile(data / "synced")
        file.note_failed(file.read())
        second = shell("inspect", "-d", data).output.splitlines()[1]
        assert second.endswith(", where the server ended itself for a failed write")

    def test_the_items_of_a_queue(self, shell, data):
        lines = shell("inspect", "-d", data, "--queue", "mail", "--limit", 2).output.splitlines()
        assert lines == [
            f"item 00000000-0000-0000-0000-00000000000{n} {state}, due 1970-01-01T00:00:00+00:00,"
            f" added 1970-01-01T00:00:00+00:00, leases that ended 0, 8 bytes"
            for n, state in ((1, "leased"), (2, "ready"))
        ]
        assert shell("inspect", "-d", data, "--queue", "mail", "--contents").output.count("bytes: contents\n") == 20

    def test_a_queue_that_is_not_there(self, shell, data):
        done = shell("inspect", "-d", data, "--queue", "mial")
        assert (done.output, done.exit_code) == ("queueber: there is no queue 'mial'\n", 1)

    def test_an_unreadable_directory_ends_with_74(self, shell, tmp_path):
        assert shell("inspect", "-d", tmp_path).exit_code == 74


class TestRestore:
    def test_restore_states_the_backup_s_extent_and_asks(self, shell, data, tmp_path, monkeypatch):
        monkeypatch.setattr("queueber.cli.terminal.is_terminal", lambda stream: True)
        make(tmp_path / "old")
        done = shell("restore", data, tmp_path / "old", "--replace", answer="y\n")
        assert done.exit_code == 0
        assert "20 items in 1 queue as of 2027-01-15" in done.output
        assert "Items that were removed since then will be there again" in done.output
        assert verify(tmp_path / "old").items == COMMITS

    @pytest.mark.parametrize("there", [(), ("",), ("lost+found",)])
    @pytest.mark.parametrize("terminal", [False, True])
    def test_no_confirmation_is_needed_to_restore_into_an_empty_directory(
        self, shell, data, tmp_path, monkeypatch, there, terminal
    ):
        """With no answer on standard input, on a terminal and without one."""
        monkeypatch.setattr("queueber.cli.terminal.is_terminal", lambda stream: terminal)
        for name in there:
            (tmp_path / "new" / name).mkdir(parents=True)
        done = shell("restore", data, tmp_path / "new")
        assert (done.exit_code, "Restore it?" in done.output) == (0, False)
        assert verify(tmp_path / "new").items == COMMITS

    def test_without_a_terminal_or_yes_the_backup_is_not_read(self, shell, tmp_path):
        make(tmp_path / "old")
        refused = shell("restore", tmp_path / "not there", tmp_path / "old", "--replace")
        assert refused.exit_code == 1
        assert "--yes gives it" in refused.output
        assert "not there" not in refused.output

    @pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
    def test_the_answer_on_a_terminal_decides(self, shell, data, tmp_path, monkeypatch, answer, status):
        monkeypatch.setattr("queueber.cli.terminal.is_terminal", lambda stream: True)
        make(tmp_path / "old")
        assert shell("restore", data, tmp_path / "old", "--replace", answer=answer).exit_code == status
        assert len([*tmp_path.glob("old.replaced-*")]) == (status == 0)

    def test_existing_data_is_kept_unless_replace_is_given(self, shell, data, tmp_path):
        make(tmp_path / "old")
        before = content_of(tmp_path / "old")
        done = shell("restore", data, tmp_path / "old", "--yes")
        assert (done.exit_code, content_of(tmp_path / "old")) == (1, before)
        assert "is not empty; with --replace" in done.output
        done = shell("restore", data, tmp_path / "old", "--yes", "--replace")
        assert done.exit_code == 0
        (kept,) = tmp_path.glob("old.replaced-*")
        assert content_of(kept) == before
        assert verify(tmp_path / "old").items == COMMITS

    @pytest.mark.parametrize(
        ("failing", "why"),
        [
            ("old", "it cannot be renamed (Device or resource busy)"),
            (r"old\.restored-.*", "its replacement cannot be renamed (Device or resource busy)"),
        ],
    )
    def test_a_swap_that_fails_leaves_no_copy_and_everything_as_it_was(
        self, shell, data, tmp_path, monkeypatch, failing, why
    ):
        make(tmp_path / "old")
        before, rename = content_of(tmp_path / "old"), Path.rename

        def fail(path, target):
            if re.fullmatch(failing, path.name):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", fail)
        done = shell("restore", data, tmp_path / "old", "--yes", "--replace")
        assert (done.exit_code, done.output.splitlines()[-1].endswith(f"{tmp_path / 'old'}: {why}")) == (74, True)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "old"]
        assert content_of(tmp_path / "old") == before

    def test_an_empty_directory_is_filled(self, shell, data, tmp_path):
        (tmp_path / "mounted").mkdir()
        (tmp_path / "mounted" / "lost+found").mkdir()
        assert shell("restore", data, tmp_path / "mounted", "--yes").exit_code == 0
        open_store(tmp_path / "mounted").close()

    def test_only_data_of_ours_is_replaced(self, shell, data, tmp_path):
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "cat.jpg").write_text("meow")
        done = shell("restore", data, tmp_path / "photos", "--yes", "--replace")
        assert done.exit_code == 1
        assert "is not a data directory of Queueber" in done.output
        assert (tmp_path / "photos" / "cat.jpg").exists()

    def test_a_directory_in_use_is_refused_before_the_copy(self, shell, data, tmp_path):
        with closing(open_store(tmp_path / "held")):
            done = shell("restore", data, tmp_path / "held", "--yes", "--replace")
        assert done.exit_code == 74
        assert not list(tmp_path.glob("held.*"))

    def test_here_and_a_link_are_the_directories_that_they_mean(self, shell, data, tmp_path, monkeypatch):
        open_store(tmp_path / "old").close()
        (tmp_path / "link").symlink_to("old")
        assert shell("restore", data, tmp_path / "link", "--yes", "--replace").exit_code == 0
        assert (tmp_path / "link").is_symlink()
        assert verify(tmp_path / "old").items
        open_store(tmp_path / "here").close()
        monkeypatch.chdir(tmp_path / "here")
        assert shell("restore", data, ".", "--yes", "--replace").exit_code == 0
        assert verify(tmp_path / "here").items

    def test_a_backup_that_is_not_sound_is_not_restored(self, shell, data, tmp_path):
        store = open_store(data)
        store.commit([PutItems(QueueNumber(9), [item(50)])], TimeMark(b"b" * 16, 1, WallMs(1)))
        store.close()
        done = shell("restore", data, tmp_path / "new", "--yes")
        assert done.exit_code == 1
        assert "it is not sound" in done.output
        assert not (tmp_path / "new").exists()


class TestRecover:
    def test_a_sound_directory_is_not_changed(self, shell, data, tmp_path):
        done = shell("recover", data)
        said = f"a server can start on {data} as it is; `queueber verify` checks whether all of it is sound\n"
        assert (done.exit_code, done.output) == (0, said)
        assert [path.name for path in tmp_path.iterdir()] == ["data"]

    def test_the_loss_is_shown_and_nothing_is_changed_without_confirmation(self, shell, damaged, tmp_path):
        before = content_of(damaged)
        done = shell("recover", damaged)
        assert done.exit_code == 1
        for part in (
            "damage: ",
            "left out of the log: ",
            "what is left: 1",
            "nothing that is known to have been",
            "--yes",
        ):
            assert part in done.output
        assert content_of(damaged) == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]

    def test_yes_puts_the_recovered_copy_in_place(self, shell, damaged, tmp_path):
        before = content_of(damaged)
        done = shell("recover", damaged, "--yes")
        assert done.exit_code == 0
        assert "is usable again" in done.output
        (kept,) = tmp_path.glob("data.damaged-*")
        assert content_of(kept) == before
        open_store(damaged).close()

    def test_acknowledged_loss_is_printed_in_capitals(self, shell, damaged):
        (log,) = [file for file in (damaged / "db").glob("*.log") if file.stat().st_size]
        content = bytearray(log.read_bytes())
        content[len(content) // 10] ^= 1
        log.write_bytes(content)
        assert "LOST: acknowledged writes.  Number " in shell("recover", damaged).output

    def test_without_a_note_the_loss_is_unknown(self, shell, damaged):
        (damaged / "synced").unlink()
        assert "were acknowledged is unknown" in shell("recover", damaged).output

    def test_a_directory_beyond_recovery_ends_with_74(self, shell, damaged):
        (damaged / "db" / "CURRENT").write_text("MANIFEST-999999\n")
        done = shell("recover", damaged, "--yes")
        assert done.exit_code == 74
        assert "a backup has to be restored" in done.output


class TestThroughTheDoor:
    @pytest.fixture(autouse=True)
    def _socket(self, monkeypatch):
        monkeypatch.setattr(Path, "is_socket", lambda path: True)

    def test_stats(self, shell):
        lines = shell("stats").output.splitlines()
        assert lines[0].split() == ["version", "9"]
        assert "uptime           1.5 s" in lines
        assert "free             1.0 GiB (1,073,741,824 bytes)" in lines
        assert "pending          0 bytes" in lines
        assert "refusing_adds    no" in lines
        assert lines[-1] == "limit queues was reached 2 times"

    def test_stats_for_programs(self, shell):
        assert '"items": 7' in shell("stats", "--json").output

    def test_check(self, shell, server):
        done = shell("check")
        assert (done.output, done.exit_code) == ("nothing is wrong; the check took 0.003 s\n", 0)
        assert server.asked[-1] is False
        server.findings = ["held twice"]
        done = shell("check", "--force")
        assert server.asked[-1] is True
        assert (done.output, done.exit_code) == ("held twice\n", 1)

    def test_without_a_server(self, shell, monkeypatch):
        monkeypatch.setattr(Path, "is_socket", lambda path: False)
        done = shell("check")
        assert done.exit_code == 1
        assert done.output.startswith("queueber: no server runs on queueber-data: there is no /")


def test_progress_is_shown_on_a_terminal_after_a_delay(monkeypatch, capsys):
    monkeypatch.setattr("queueber.cli.terminal.is_terminal", lambda stream: True)
    now = [0.0]
    with ByteProgressBar("Copying", lambda: now[0]) as progress:
        progress(1, 10)
        now[0] = PROGRESS_DELAY_SECONDS
        progress(0, 0)
        assert capsys.readouterr().err == ""
        progress(4, 10)
        progress(10, 10)
    assert "Copying" in capsys.readouterr().err


def test_no_progress_is_shown_without_a_terminal(capsys):
    now = [0.0]
    with ByteProgressBar("Copying", lambda: now[0]) as progress:
        now[0] = 100
        progress(4, 10)
    assert capsys.readouterr().err == ""


def test_a_time_that_is_unknown_or_out_of_range_is_printed():
    assert (moment(None), moment(2**63)) == ("no known time", f"{2**63} ms")
