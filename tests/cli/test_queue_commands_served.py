"""The commands for queues and their items with a real server: what they change, and how they behave on a terminal."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from queueber.cli.__main__ import queueber
from queueber.cli.commands import SECTIONS
from tests.support.processes import COMMAND
from tests.support.server_process import TIMEOUT_SECONDS

PAGE = (Path(__file__).parents[2] / "docs" / "scripting.md").read_text()

pytestmark = pytest.mark.slow
UNKNOWN = "00000000-0000-7000-8000-000000000000"


@pytest.fixture
def name(request):
    """The test's own queue."""
    return re.sub(r"\W+", "-", request.node.name)


class Command:
    """The command with the server and a queue."""

    def __init__(self, server, name):
        self.server = server
        self.options = ["--addr", f"127.0.0.1:{server.port}", "--queue", name]

    def run(self, *arguments):
        return CliRunner().invoke(queueber, [*self.options, *arguments])

    def __call__(self, *arguments):
        """Return what a command that succeeds prints."""
        done = self.run(*arguments)
        assert (done.exit_code, done.stderr) == (0, "")
        return done.stdout

    def json(self, *arguments):
        return json.loads(self(*arguments, "--json"))

    def add(self, *contents, **options):
        return self.json("add", *contents, *(word for each in options.items() for word in each))["ids"]

    def poll(self, *options):
        batch = self.json("poll", "--no-wait", "--lease", "600", *options)
        return batch["lease"], [item["id"] for item in batch["items"]]

    def counts(self):
        stats = self.json("stats", "--exact", *self.options[2:])["stats"]
        assert (stats["ready"], stats["delayed"]) == (stats["readyMax"], stats["delayedMax"])
        return {state: stats[state] for state in ("ready", "delayed", "leased", "dead")}

    def start(self, *arguments, **streams):
        return subprocess.Popen([*COMMAND, *self.options, *arguments], **streams)


@pytest.fixture
def command(server, name):
    return Command(server, name)


def counts(ready=0, delayed=0, leased=0, dead=0):
    return {"ready": ready, "delayed": delayed, "leased": leased, "dead": dead}


def test_a_task_that_fails_is_dead_and_is_redriven(command, name):
    settings = command.json("configure", "max-attempts=2", "backoff-base-ms=0", "--label", "team=post")["settings"]
    assert (settings["maxAttempts"], settings["labels"]) == (2, {"team": "post"})
    assert command("configure", "--reset", "labels").split() == ["labels", "none", "default"]
    (item,) = command.add("hello")
    lease, _ = command.poll()
    assert command("fail", item, lease, "--error", "no such mailbox").startswith("failed: due again at ")
    lease, _ = command.poll()
    last = command.json("fail", item, lease, "--error", "still none")
    assert last == {"outcome": "done", "died": True, "dueMs": 0}
    assert command.counts() == counts(dead=1)
    (dead,) = command.json("dead")["items"]
    assert (dead["id"], dead["failures"], dead["lastError"], dead["death"]["reason"]) == (
        item,
        2,
        "still none",
        "attempts",
    )
    assert command("dead").splitlines()[1] == "  last error: still none"
    assert "why           it is dead until it is redriven" in command("get", item).splitlines()
    assert command.json("redrive", "--reason", "lost") == {"moved": 0}
    assert command("redrive") == "moved 1 item\n"
    assert command.counts() == counts(ready=1)
    assert command.poll()[1] == [item]


def test_the_ways_of_leaving_a_lease(command):
    ids = command.add("a", "b", "c", "d")
    lease, polled = command.poll("-n", "4")
    assert polled == ids
    assert command("fail", ids[0], lease, "--delay", "600").startswith("failed: due again at ")
    assert command("defer", ids[1], lease, "--delay", "600").startswith("deferred: due again at ")
    assert command("defer", ids[2], lease).startswith("deferred: due again at ")
    assert command.counts() == counts(ready=1, delayed=2, leased=1)
    assert command("reject", "all", lease, "--yes", "--error", "no use") == "rejected\n"
    assert command.counts() == counts(ready=1, delayed=2, dead=1)
    done = command.run("fail", ids[0], lease)
    assert (done.exit_code, done.stderr) == (1, "queueber: not failed: the lease has ended, or is of another queue\n")


def test_looking_changes_nothing(command, name, server):
    ids = command.add("first", "second")
    (later,) = command.add("later", **{"--delay": "600"})
    lease, _ = command.poll()
    before = command.counts()
    assert before == counts(ready=1, delayed=1, leased=1)
    assert [item["id"] for item in command.json("peek")["items"]] == [ids[1], later]
    assert [item["id"] for item in command.json("peek", "--state", "delayed")["items"]] == [later]
    part = command.json("peek", "-n", "1", "--bytes", "3")
    assert (part["items"][0]["contents"], part["items"][0]["contentsBytes"]) == ("sec", 6)
    assert [item["id"] for item in command.json("peek", "--after", part["after"])["items"]] == [later]
    (held,) = command.json("leases")["leases"]
    assert (held["items"], held["ids"], held["handle"] == lease) == (1, [ids[0]], False)
    found = command.json("get", ids[0])["item"]
    assert (found["state"], found["waits"]["lease"]["handle"]) == ("leased", held["handle"])
    assert "it is not due yet" in command("get", later)
    (listed,) = command.json("queues", name)["queues"]
    assert (listed["name"], listed["stats"]["items"]) == (name, 3)
    assert command("queues", name).splitlines()[1].startswith(name)
    assert command("leases").splitlines()[1].startswith(held["handle"])
    assert command.counts() == before
    by_socket = CliRunner().invoke(queueber, ["stats", name, "--data-dir", str(server.data_dir), "--json"])
    assert json.loads(by_socket.stdout)["stats"]["items"] == 3


def test_stats_without_a_queue_are_those_of_the_server(command, server, name):
    """Whatever queue the environment, or an option before the command, has."""
    command.add("x")
    found = json.loads(command("stats", "--data-dir", str(server.data_dir), "--json"))
    assert "connections" in found
    assert (
        CliRunner(env={"QUEUEBER_QUEUE": name})
        .invoke(queueber, ["stats", "--data-dir", str(server.data_dir)])
        .stdout.startswith("version")
    )


def test_a_paused_queue(command):
    command.add("x")
    assert command("pause").endswith("adds not paused, polls paused\n")
    assert command.json("pause", "--adds") == {"addsPaused": True, "pollsPaused": True}
    assert command.run("poll", "--no-wait").exit_code == 3
    assert command.run("add", "y").exit_code == 1
    assert "adds paused; polls paused" in command("queues", command.options[-1])
    assert "paused         adds paused, polls paused" in command("stats", *command.options[2:])
    assert command.json("resume", "--polls") == {"addsPaused": True, "pollsPaused": False}
    assert command.json("resume") == {"addsPaused": False, "pollsPaused": False}
    assert command.poll()[0]


def test_items_are_moved_and_removed_by_their_ids(command):
    soon, late, held = command.add("soon", "late", **{"--delay": "600"}) + command.add("held")
    lease, _ = command.poll()
    assert command("kick", soon) == f"item {soon} kicked\n"
    assert command.counts() == counts(ready=1, delayed=1, leased=1)
    assert command("reschedule", late, "--in", "5").startswith(f"item {late} rescheduled to 20")
    assert command("reschedule", late, "--at", "2001-01-01T00:00").startswith(f"item {late} rescheduled to 200")
    assert command.counts() == counts(ready=2, leased=1)
    done = command.run("cancel", soon, held, UNKNOWN, "--yes")
    assert (done.exit_code, done.stdout) == (1, f"item {soon} cancelled\n")
    assert done.stderr.splitlines() == [
        f"queueber: item {held} not cancelled: it is leased, and its worker decides",
        f"queueber: item {UNKNOWN} not cancelled: there is no such item",
    ]
    (handle,) = [each["handle"] for each in command.json("leases")["leases"]]
    heading, row = command("leases").splitlines()
    assert (heading.split()[0], row.split()[0]) == ("handle", handle)
    assert command.run("remove", held, handle).exit_code == 1
    assert command.run("extend", handle).exit_code == 1
    assert command("end-lease", handle) == "ended\n"
    assert command.run("end-lease", UNKNOWN).exit_code == 1
    assert command.run("remove", held, lease).exit_code == 1


def test_a_queue_is_purged_and_deleted(command, name):
    command.add("a", "b")
    lease, _ = command.poll()
    done = command.run("delete", name, "--yes")
    assert (done.exit_code, "--force deletes it with them" in done.stderr) == (1, True)
    assert command("purge", name, "--yes") == "removed 1 item\n"
    assert command.counts() == counts(leased=1)
    command("reject", "all", lease, "--yes")
    assert command.json("purge", name, "--dead", "--yes") == {"removed": 1}
    assert command.json("delete", name, "--yes") == {"outcome": "done"}
    assert command.json("queues", name)["queues"] == []


def test_the_server_s_numbers_are_watched(command, server):
    options = ("stats", "--data-dir", str(server.data_dir), "--watch", "--interval", "0.05", "--json")
    with command.start(*options, stdout=subprocess.PIPE) as watch:
        assert [json.loads(watch.stdout.readline())["version"] for _ in range(2)]
        watch.send_signal(signal.SIGTERM)
        assert watch.wait(TIMEOUT_SECONDS) == 130


def test_a_list_is_watched_until_a_signal(command, name):
    command.add("x")
    with command.start("queues", name, "--watch", "--interval", "0.05", "--json", stdout=subprocess.PIPE) as watch:
        for _ in range(3):
            (found,) = json.loads(watch.stdout.readline())["queues"]
            assert found["stats"]["items"] == 1
        watch.send_signal(signal.SIGINT)
        assert watch.wait(TIMEOUT_SECONDS) == 130


LP = 'lp() { if grep -q bad "$1"; then echo "cannot print" >&2; return 1; fi; cat "$1"; echo; }\n'
"""A printer that refuses bad letters."""


def test_the_worker_of_the_page_about_scripts(command, server, name, tmp_path):
    worker, last_line = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    worker = worker.replace("export QUEUEBER_QUEUE=letters\n", "")
    (replaced,) = re.findall(r"^ *lp letter.txt.*\n", worker, re.MULTILINE)
    command("configure", "max-attempts=1")
    ids = command.add("good", "bad", "better")
    environment = {
        **os.environ,
        "QUEUEBER_ADDR": f"127.0.0.1:{server.port}",
        "QUEUEBER_QUEUE": name,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-c", LP + worker.replace(replaced, last_line)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["removed", "failed", "removed"]
    (dead,) = command.json("dead")["items"]
    assert (dead["id"], dead["lastError"]) == (ids[1], "cannot print")


def test_the_page_about_scripts_has_every_command_for_queues():
    names = [name for section in [*SECTIONS][:3] for name in SECTIONS[section].split()]
    assert [name for name in names if not re.search(rf"queueber {name}\b", PAGE)] == []


class Terminal:
    """A process on a pseudo-terminal."""

    def __init__(self, command, *arguments, stdout=None):
        self._end, other = pty.openpty()
        streams = {"stdin": other, "stdout": other if stdout is None else stdout, "stderr": other}
        self.process = command.start(*arguments, **streams, start_new_session=True)
        os.close(other)
        self.shown = ""

    def read_to(self, text):
        while text not in self.shown:
            self.shown += os.read(self._end, 4_096).decode()

    def answer(self, text):
        os.write(self._end, text.encode())

    def status(self):
        # The terminal ends with its last process.
        with suppress(OSError):
            while part := os.read(self._end, 4_096):
                self.shown += part.decode()
        os.close(self._end)
        return self.process.wait(TIMEOUT_SECONDS)


@pytest.mark.parametrize(("answer", "status", "left"), [("y\n", 0, 0), ("n\n", 1, 1), ("\n", 1, 1), ("\4", 130, 1)])
def test_a_purge_asks_on_a_terminal(command, name, answer, status, left):
    command.add("x")
    terminal = Terminal(command, "purge", name)
    terminal.read_to("[y/N]: ")
    assert f"Remove all ready and delayed items of the queue {name}, for ever?" in terminal.shown
    terminal.answer(answer)
    assert terminal.status() == status
    assert ("removed 1 item" in terminal.shown, "nothing was done" in terminal.shown) == (not left, bool(left))
    assert command.counts() == counts(ready=left)


def test_a_watched_list_replaces_itself_on_a_terminal(command, name):
    command.add("x")
    terminal = Terminal(command, "leases", "--watch", "--interval", "0.05")
    terminal.read_to("no leases\r\n\x1b[H\x1b[2J")
    command.poll()
    terminal.read_to("not known any more")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.status() == 130


def test_a_long_redrive_shows_its_progress_on_a_terminal(command):
    items = 2_500
    for begin in range(0, items, 1_000):
        command("add", *map(str, range(begin, min(items, begin + 1_000))))
        lease, _ = command.poll("-n", "1000")
        command("reject", "all", lease, "--yes")
    assert command.counts() == counts(dead=items)
    terminal = Terminal(command, "redrive", stdout=subprocess.DEVNULL)
    assert terminal.status() == 0
    assert re.search(r"Moving.*/2500", terminal.shown)
    assert command.counts() == counts(ready=items)


def test_a_name_that_begins_with_a_dot_is_that_of_a_queue_like_any_other(command):
    """Clients that were compiled before may have such names."""
    command("configure", "max-attempts=1", "--queue", ".dead")
    command("add", "a", "--queue", ".dead")
    batch = command.json("poll", "--no-wait", "--queue", ".dead")
    command("fail", batch["items"][0]["id"], batch["lease"], "--queue", ".dead")
    assert command("redrive", "--queue", ".dead", "--to", ".again") == "moved 1 item\n"
    found = {each["name"] for each in command.json("queues", ".")["queues"]}
    assert found == {".again", ".dead"}


def test_a_queue_exists_from_its_first_item_or_settings_to_its_end(command, name):
    problem = f"queueber: there is no queue '{name}'\n"
    for arguments in (["stats", name], ["dead"], ["redrive"], ["pause"], ["settings"]):
        done = command.run(*arguments)
        assert (done.exit_code, done.stdout, done.stderr) == (1, "", problem)
    command("configure", "max-attempts=5")
    assert command("dead") == "no items\n"
    assert command("redrive") == "moved 0 items\n"
    assert command("delete", name, "--yes") == "deleted\n"
    assert command.run("delete", name, "--yes").stderr == f"queueber: not deleted: there is no queue '{name}'\n"
    assert command("pause", "--create") == f"queue {name}: adds not paused, polls paused\n"
    assert command("resume") == f"queue {name}: adds not paused, polls not paused\n"
