"""`queueber work` with a real server: its targets, its processes, and its end.  Mistakes: `test_work_options`."""

import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from queueber.cli.__main__ import queueber
from queueber.cli.work_stop import SAME_SECONDS
from queueber.cli.work_supervisor import EXIT_REFUSED
from tests.support.waiting import until

pytestmark = pytest.mark.slow

TIMEOUT_SECONDS = 30.0
"""For what takes a moment, however busy the machine is."""

MODULE = """
import os, threading, time
from pathlib import Path
from queueber.tasks import Tasks
from queueber.worker import Worker

HERE = Path(__file__).parent

def note(item):
    with open(HERE / "done", "a") as file:
        file.write(f"{item.contents.decode()} {os.getpid()}\\n")

async def note_soon(item):
    note(item)

def slowly(item):
    note(item)
    time.sleep(600)

def patiently(item):
    note(item)
    (HERE / "begun").touch()
    while not (HERE / "go on").exists() and not item.stopping:
        time.sleep(0.01)

number = 5

app = Tasks(f"queueber://{os.environ.get('SERVER')}/of-the-app")

@app.task
def double(number: int):
    with open(HERE / "done", "a") as file:
        file.write(f"{2 * number} {os.getpid()}\\n")

@app.task(queue="others")
def other():
    pass

worker = Worker(os.environ["SERVER"] + "", note, queues=["made"])
"""


def gone(pid):
    """Return whether a process that is no child of this one has ended.  Its parent may be slow to notice."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


class Work:
    """The command in a folder of its own, in which there is a module `shop`."""

    def __init__(self, server, folder, queue):
        self.server, self.folder, self.queue = server, folder, queue
        self.processes = []
        (folder / "shop.py").write_text(MODULE)

    def cli(self, *arguments):
        done = CliRunner().invoke(queueber, ["--addr", self.address, "--queue", self.queue, *arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    def add(self, *contents):
        self.cli("add", *contents)

    def counts(self):
        stats = json.loads(self.cli("stats", "--exact", self.queue, "--json"))["stats"]
        return {name: stats[name] for name in ("ready", "delayed", "leased", "dead")}

    def left(self):
        return sum(self.counts().values())

    @property
    def address(self):
        return f"127.0.0.1:{self.server.port}"

    def environment(self, own=None, path=""):
        """Return the environment of a program; *own* is the server of the module, and *path* a folder of programs."""
        return {
            **os.environ,
            "SERVER": own or self.address,
            # As in most shells: output waits in a buffer.
            "PYTHONUNBUFFERED": "",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PATH": f"{path}{os.pathsep}{os.environ['PATH']}",
        }

    def start(self, *arguments, server=True, queue=True, own=None, path=""):
        log = (self.folder / f"log{len(self.processes)}").open("w")
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "queueber.cli",
                *(("--addr", self.address) if server else ()),
                "work",
                *(("--queue", self.queue) if queue else ()),
                *arguments,
            ],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=self.environment(own, path),
        )
        log.close()
        self.processes.append(process)
        return process

    def log(self, number=-1):
        return (self.folder / f"log{len(self.processes) - 1 if number < 0 else number}").read_text()

    def logged(self, pattern, times=1):
        """Return the matches once there are enough of them."""
        return until(lambda: len(found := re.findall(pattern, self.log(), re.MULTILINE)) >= times and found)

    def done(self):
        """Return contents and process of each item, in order."""
        path = self.folder / "done"
        return [tuple(line.split()) for line in path.read_text().splitlines()] if path.exists() else []

    def stop(self, process):
        process.send_signal(signal.SIGTERM)
        return process.wait(TIMEOUT_SECONDS)


@pytest.fixture
def work(server, tmp_path, request):
    work = Work(server, tmp_path, re.sub(r"\W+", "-", request.node.name))
    yield work
    for process in work.processes:
        process.kill()
        process.wait()


# One process


@pytest.mark.parametrize("target", ["shop:note", "shop:note_soon"])
def test_a_function_and_a_coroutine_function(work, target):
    work.add("a", "b", "c")
    process = work.start("-v", target)
    until(lambda: work.left() == 0)
    assert work.stop(process) == 0
    assert sorted(name for name, _ in work.done()) == ["a", "b", "c"]
    assert work.log().splitlines()[0].endswith(f" work {target}; server {work.address}; queues {work.queue}")
    assert len(re.findall(rf"item \S+ of {work.queue} removed after .*, attempt 1$", work.log(), re.MULTILINE)) == 3


def test_a_worker_object_has_its_own_settings(work):
    work.cli("add", "--queue", "made", "x")
    process = work.start("shop:worker", server=False, queue=False)
    until(work.done)
    assert work.stop(process) == 0
    process = work.start("shop:worker", "--concurrency", "2", "--prefetch", "1", queue=False)
    assert process.wait(TIMEOUT_SECONDS) == 1
    assert work.log().endswith(
        "queueber: shop:worker is a Worker, which has settings of its own: --concurrency, --prefetch cannot be given.\n"
    )


ADD = "import shop; shop.double.add(21); shop.app.close()"


def test_the_tasks_of_an_app(work):
    subprocess.run([sys.executable, "-c", ADD], cwd=work.folder, env=work.environment(), check=True)
    process = work.start("-v", "shop:app", "--liveness-file", "alive", server=False, queue=False)
    until(work.done)
    until((work.folder / "alive").exists)
    assert work.stop(process) == 0
    assert [text for text, _ in work.done()] == ["42"]
    assert "queues of-the-app, others" in work.log()
    # From another server than its own, and only of one of its queues.
    process = work.start("shop:app", "--queue", "others", queue=False, own="127.0.0.1:1")
    work.logged("taking items of others")
    assert work.stop(process) == 0
    process = work.start("shop:app", "--queue", "mail", queue=False)
    assert process.wait(TIMEOUT_SECONDS) == 1
    assert work.log().endswith(
        "queueber: shop:app has no tasks in the queue 'mail'; it has some in of-the-app, others.\n"
    )


def test_a_command_per_item(work):
    work.cli("configure", "max-attempts=2", "backoff-base-ms=0")
    work.add("good", "bad", "later")
    script = 'read -r word; case $word in bad) echo "no $word" >&2; exit 4;; later) exit 75;; esac; echo "did $word"'
    process = work.start("--concurrency", "2", "--defer", "600", "--", "sh", "-c", script)
    until(lambda: work.counts() == {"ready": 0, "delayed": 1, "leased": 0, "dead": 1})
    assert work.stop(process) == 0
    (dead,) = json.loads(work.cli("dead", "--json"))["items"]
    assert (dead["lastError"], dead["failures"]) == ("exit status 4\nno bad", 2)
    assert "did good\n" in work.log()
    assert re.search(rf"item \S+ of {work.queue} failed, attempt 2: exit status 4\nno bad\n", work.log())


PAGE = (Path(__file__).parents[2] / "docs" / "work.md").read_text()
LP = """#!/bin/sh
cat > "printed by $2 attempt $QUEUEBER_ATTEMPT"
"""


def test_the_command_of_the_page(work):
    (line,) = re.findall(r"```sh\n(.*?)\n```", PAGE, re.DOTALL)
    program, command, option, _, *arguments = shlex.split(line)
    assert [program, command, option] == ["queueber", "work", "--queue"]
    printer = work.folder / "bin" / "lp"
    printer.parent.mkdir()
    printer.write_text(LP)
    printer.chmod(0o755)
    work.add("a letter")
    process = work.start(*arguments, path=printer.parent)
    printed = work.folder / "printed by hall attempt 1"
    until(lambda: work.left() == 0)
    assert work.stop(process) == 0
    assert printed.read_text() == "a letter"


def test_the_page_has_every_option():
    options = re.findall(
        r"^ +(?:-\w, )?(--[\w-]+)", CliRunner().invoke(queueber, ["work", "--help"]).stdout, re.MULTILINE
    )
    assert len(options) > 15
    assert [each for each in options if each not in PAGE and each != "--help"] == []


def test_a_command_has_time_to_end_and_its_item_is_settled(work):
    work.add("slow")
    process = work.start("--", "sh", "-c", "touch begun; while ! [ -e go ]; do sleep 0.05; done")
    until((work.folder / "begun").exists)
    process.send_signal(signal.SIGINT)
    work.logged("SIGINT: no new items; running ones have")
    assert work.counts()["leased"] == 1
    (work.folder / "go").touch()
    assert process.wait(TIMEOUT_SECONDS) == 0
    assert work.left() == 0


def test_a_second_signal_ends_at_once_and_counts_no_attempt(work):
    work.add("slow")
    process = work.start("--grace", "600", "shop:slowly")
    until(work.done)
    process.send_signal(signal.SIGINT)
    work.logged("SIGINT: no new items; running ones have")
    # Signals in quick succession would be one.
    time.sleep(SAME_SECONDS)
    assert work.stop(process) == 0
    until(lambda: work.counts()["ready"] == 1)
    (item,) = json.loads(work.cli("peek", "--json"))["items"]
    assert item["attempts"] == 0


@pytest.mark.parametrize("processes", ["1", "3"])
def test_an_error_in_the_module_is_printed_once_and_is_the_end(work, processes):
    (work.folder / "broken.py").write_text("1 / 0")
    process = work.start("broken:app", "--processes", processes)
    assert process.wait(TIMEOUT_SECONDS) == 1
    traceback, *_, last = work.log().splitlines()
    assert traceback == "Traceback (most recent call last):"
    assert last == "queueber: the module broken cannot be imported: ZeroDivisionError: division by zero"
    assert work.log().count("Traceback") == 1


WITH_A_THREAD = """
import threading
threading.Thread(target=threading.Event().wait).start()
"""


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 / 0", "the module broken cannot be imported: ZeroDivisionError: division by zero"),
        ("number = 5", "the module broken has no app"),
    ],
)
def test_a_thread_of_a_module_that_cannot_be_used_does_not_hold_the_process(work, processes, text, reason):
    (work.folder / "broken.py").write_text(WITH_A_THREAD + text)
    process = work.start("broken:app", "--processes", processes)
    assert process.wait(TIMEOUT_SECONDS) == 1
    assert work.log().splitlines()[-1] == f"queueber: {reason}"


LOGGING = """
import logging
from shop import HERE, note

logging.basicConfig(filename=HERE / "own log", level="INFO")
"""


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_program_that_sets_up_logging_gets_the_lines_of_the_worker(work, processes):
    (work.folder / "logs.py").write_text(LOGGING)
    process = work.start("logs:note", "--processes", processes)
    own = work.folder / "own log"
    until(lambda: own.exists() and own.read_text().count("connected; taking items") == int(processes))
    assert work.stop(process) == 0
    assert "SIGTERM: no new items" in own.read_text()
    assert "connected" not in work.log()


# The health page


PAGED = """
import os
from queueber.worker import Worker
import shop

worker = Worker(os.environ["SERVER"], shop.note, queues=["paged"], http_port={port}, liveness_file="alive")
"""


def two_ports():
    """Return a socket at the second of two ports, and the first one, which is free."""
    while True:
        second = socket.create_server(("127.0.0.1", 0))
        first = second.getsockname()[1] - 1
        with suppress(OSError), socket.create_server(("127.0.0.1", first)):
            return second, first
        second.close()


def page(port):
    """Return the health on a page; None as long as there is none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=TIMEOUT_SECONDS) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None


OF_THE_WORKER = ["paged:worker"]
BY_OPTION = ["shop:note", "--queue", "paged", "--liveness-file", "alive", "--http-port"]


@pytest.mark.parametrize("arguments", [OF_THE_WORKER, BY_OPTION], ids=["worker", "option"])
def test_each_process_has_a_page_and_a_file_of_its_own(work, arguments):
    second, port = two_ports()
    second.close()
    (work.folder / "paged.py").write_text(PAGED.format(port=port))
    given = [*arguments, str(port)] if arguments is BY_OPTION else arguments
    process = work.start(*given, "--processes", "2", queue=False)
    for each in (port, port + 1):
        until(lambda each=each: (found := page(each)) and found["polls"] + found["connected"])
        work.logged(f"worker {each - port + 1}: the health page is at port {each} of 127.0.0.1")
    assert sorted(each.name for each in work.folder.glob("alive*")) == ["alive.1", "alive.2"]
    assert work.stop(process) == 0
    assert list(work.folder.glob("alive*")) == []
    assert "ended:" not in work.log()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_port_that_is_taken_is_the_end(work, processes):
    """The second process finds its port taken after the first one has begun."""
    second, port = two_ports()
    with second:
        number = port + 1 if processes == "1" else port
        (work.folder / "paged.py").write_text(PAGED.format(port=number))
        process = work.start("paged:worker", "--processes", processes, queue=False)
        assert process.wait(TIMEOUT_SECONDS) == 1
    reason = f"http_port {port + 1} of 127.0.0.1 cannot be opened: Address already in use"
    assert work.log().splitlines()[-1].endswith(reason)
    assert work.log().count(reason) == 1


# A worker that cannot poll


LIMIT = r"700,000,000 ms; the limit is 604,800,000$"
HTTP = r"cannot connect to 127\.0\.0\.1:\d+: this port speaks HTTP$"


@pytest.fixture
def web():
    """A port that speaks HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            with suppress(OSError):
                while True:
                    with listener.accept()[0] as peer:
                        peer.recv(65_536)
                        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("processes", ["1", "3"])
def test_a_server_that_refuses_the_first_poll_is_the_end(work, processes):
    process = work.start("--processes", processes, "--lease", "700000", "shop:note")
    assert process.wait(TIMEOUT_SECONDS) == EXIT_REFUSED
    assert re.search(LIMIT, work.log().splitlines()[-1])
    assert len(re.findall(LIMIT, work.log(), re.MULTILINE)) == 1


@pytest.mark.parametrize("processes", ["1", "3"])
def test_a_port_that_speaks_something_else_is_the_end(work, web, processes):
    process = work.start("--addr", web, "--processes", processes, "shop:note", server=False)
    assert process.wait(TIMEOUT_SECONDS) == EXIT_REFUSED
    assert re.search(HTTP, work.log().splitlines()[-1])
    assert len(re.findall(HTTP, work.log(), re.MULTILINE)) == 1


def test_a_server_that_is_away_is_waited_for(work):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        away = f"127.0.0.1:{gone.getsockname()[1]}"
    process = work.start("--addr", away, "--processes", "2", "shop:note", server=False)
    work.logged("there is no connection: Connection refused", 2)
    assert work.stop(process) == 0
    assert "ended:" not in work.log()


# The end of a process


STUCK = """
import atexit, os, sys, threading
import shop

def handle(item):
    shop.note(item)
    print("printed for", item.contents.decode())
    {thread}

{handler}
atexit.register(print, "printed at the end")
"""

# A thread of a handler is a daemon, and so are those that it starts.
THREAD = "threading.Thread(target=threading.Event().wait, daemon=False).start()"
HANDLER = "atexit.register(threading.Event().wait)"


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize(
    "stuck",
    [{"thread": "", "handler": ""}, {"thread": THREAD, "handler": ""}, {"thread": "", "handler": HANDLER}],
    ids=["nothing", "thread", "handler"],
)
def test_what_a_program_prints_until_its_end_arrives(work, stuck, processes):
    """Also when a thread or an exit handler of the program never ends.  Nothing is killed."""
    (work.folder / "stuck.py").write_text(STUCK.format(**stuck))
    process = work.start("--processes", processes, "stuck:handle")
    work.add("a")
    until(lambda: work.left() == 0)
    if processes == "2":
        work.logged("connected; taking items", 2)
    assert work.stop(process) == 0
    lines = work.log().splitlines()
    assert lines.count("printed for a") == 1
    assert lines.count("printed at the end") == int(processes)
    assert ("does not end, so the process is ended" in work.log()) == any(stuck.values())
    assert "killed" not in work.log()


ENDING = """
import atexit, os, threading
from shop import HERE, note

def stand():
    (HERE / f"ending {os.getpid()}").touch()
    threading.Event().wait()

atexit.register(stand)
"""


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_second_signal_ends_exit_handlers(work, processes):
    (work.folder / "ending.py").write_text(ENDING)
    process = work.start("ending:note", "--processes", processes)
    work.logged("connected; taking items", int(processes))
    process.send_signal(signal.SIGTERM)
    until(lambda: len(list(work.folder.glob("ending *"))) == int(processes))
    time.sleep(SAME_SECONDS)
    assert work.stop(process) == 0
    assert "does not end" not in work.log()


def test_a_terminal_that_is_closed_stops_a_worker_without_a_supervisor(work):
    process = work.start("shop:patiently")
    work.add("a")
    until((work.folder / "begun").exists)
    process.send_signal(signal.SIGHUP)
    work.logged("SIGHUP: no new items; running ones have")
    (work.folder / "go on").touch()
    assert process.wait(TIMEOUT_SECONDS) == 0
    assert work.left() == 0


# Several processes


def test_processes_share_the_work_and_one_that_dies_is_replaced(work):
    process = work.start("--processes", "2", "--concurrency", "1", "--prefetch", "0", "shop:patiently")
    work.add("a", "b")
    until(lambda: len(work.done()) == 2)
    (lost, first), (_, second) = work.done()
    assert first != second
    os.kill(int(first), signal.SIGKILL)
    work.logged(rf"worker \d \(process {first}\) ended: killed by SIGKILL; another starts in 0.5 s")
    (work.folder / "go on").touch()
    work.add("c", "d")
    # The process that replaces it takes over its session, so that its item does not wait for the grace of 30 s.
    until(lambda: len(work.done()) == 5)
    assert sorted(contents for contents, _ in work.done()) == sorted(["a", "b", "c", "d", lost])
    pids = set(work.logged(r"worker \d \(process (\d+)\)"))
    assert pids == {first}
    assert work.stop(process) == 0
    assert {pid for _, pid in work.done()} >= {first, second}


def test_a_service_manager_signals_all_processes_at_once(work):
    """Systemd does so by default: no worker takes the supervisor's signal for its second."""
    process = work.start("--processes", "2", "--concurrency", "1", "--prefetch", "0", "shop:patiently")
    work.add("a", "b")
    until(lambda: len(work.done()) == 2)
    for pid in (process.pid, *(int(pid) for _, pid in work.done())):
        os.kill(pid, signal.SIGTERM)
    work.logged(r"worker \d: SIGTERM: no new items", 2)
    assert work.counts()["leased"] == 2
    (work.folder / "go on").touch()
    assert process.wait(TIMEOUT_SECONDS) == 0
    assert work.left() == 0


def test_a_second_signal_ends_all_processes_at_once(work):
    process = work.start("--processes", "2", "--concurrency", "1", "--prefetch", "0", "--grace", "600", "shop:slowly")
    work.add("a", "b")
    until(lambda: len(work.done()) == 2)
    process.send_signal(signal.SIGINT)
    work.logged("SIGINT: no new items; running ones have time to end")
    time.sleep(SAME_SECONDS)
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT_SECONDS) == 0
    assert work.counts() == {"ready": 2, "delayed": 0, "leased": 0, "dead": 0}


def test_a_process_is_replaced_after_so_many_items(work):
    process = work.start("--recycle-after", "5", "shop:note")
    for begin in range(0, 15, 5):
        work.add(*map(str, range(begin, begin + 5)))
        work.logged(r"worker 1 \(process \d+\) is replaced: \d+ items", begin // 5 + 1)
    until(lambda: len(work.done()) == 15)
    assert len({pid for _, pid in work.done()}) == 3
    assert work.stop(process) == 0
    assert "ended:" not in work.log()


def test_sighup_replaces_all(work):
    process = work.start("--processes", "2", "shop:note")
    work.logged("connected", 2)
    process.send_signal(signal.SIGHUP)
    work.logged("connected", 4)
    assert work.stop(process) == 0


def test_reload_while_a_program_is_written(work):
    process = work.start("--reload", "shop:note")
    work.add("a")
    until(lambda: len(work.done()) == 1)
    (work.folder / "shop.py").write_text("1 / 0")
    work.logged("shop.py changed; reloading")
    work.logged("waiting for a change of a file")
    (work.folder / "shop.py").write_text(MODULE)
    work.add("b")
    until(lambda: len(work.done()) == 2)
    assert work.stop(process) == 0
    assert work.log().count("Traceback") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--processes", "2", "--prefetch", "0", "--concurrency", "1", "shop:patiently"],
        ["--", "sh", "-c", "touch begun; while ! [ -e 'go on' ]; do sleep 0.05; done"],
    ],
    ids=["processes", "command"],
)
def test_ctrl_c_on_a_terminal_is_one_signal(work, arguments):
    """The terminal sends it to all processes in the foreground: a worker would count two, and a command would end."""
    work.add("a")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(work.folder)
        command = ["-m", "queueber.cli", "--addr", work.address, "work", "--queue", work.queue, *arguments]
        os.execve(sys.executable, [sys.executable, *command], work.environment())
    shown = b""
    until((work.folder / "begun").exists)
    os.write(terminal, b"\x03")
    while b"no new items" not in shown:
        shown += os.read(terminal, 4_096)
    assert work.counts()["leased"] == 1
    (work.folder / "go on").touch()
    with suppress(OSError):
        # The terminal ends with its last process.
        while part := os.read(terminal, 4_096):
            shown += part
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)
    assert work.left() == 0
    assert b"queueber work" in shown
    assert b"return to their queues now" not in shown


def test_processes_end_with_their_supervisor(work):
    process = work.start("--processes", "2", "--concurrency", "1", "--prefetch", "0", "shop:patiently")
    work.add("a", "b")
    until(lambda: len(work.done()) == 2)
    pids = [int(pid) for _, pid in work.done()]
    process.kill()
    process.wait()
    (work.folder / "go on").touch()
    for pid in pids:
        until(lambda pid=pid: gone(pid))
    assert work.left() == 0
