"""Standard streams of a command, as a shell, a pipe or a service manager leaves them."""

import os
import subprocess
import sys

import pytest

from tests.support.processes import completed

pytestmark = pytest.mark.slow

ROW = "import sys; from queueber.cli.streams import run; run(lambda: "


def command(what, redirections="", **environment):
    """Return the result of the expression *what* under `queueber.cli.streams.run`, in a shell with *redirections*."""
    return subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {redirections}', sys.executable, f"{ROW}{what})"],
        capture_output=True,
        env={**os.environ, "PYTHONUNBUFFERED": "", **environment},
        timeout=120,
        check=False,
    )


def test_a_closed_output_is_refused_before_anything_is_done(tmp_path):
    done = command(f"open({str(tmp_path / 'done')!r}, 'w')", ">&-")

    assert (done.returncode, done.stderr) == (1, b"queueber: standard output is closed\n")
    assert not (tmp_path / "done").exists()


def test_a_full_device_is_named_and_has_a_status():
    done = command("print('x')", ">/dev/full")

    assert done.returncode == 1
    assert done.stderr == b"queueber: standard output: No space left on device\n"


def test_a_status_of_its_own_is_kept_on_a_full_device():
    assert command("(print('x'), sys.exit(74))", ">/dev/full 2>&1").returncode == 74


@pytest.mark.parametrize(
    "what", ["print('x' * 1_000_000)", "__import__('queueber.cli.commands').cli.commands.queueber(['--help'])"]
)
def test_a_pipe_that_ends_is_no_complaint(what):
    """Also in a command, for which click has another status."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"{ROW}{what})"], stdout=write, stderr=subprocess.PIPE, timeout=120, check=False
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_closed_input_fails_only_commands_that_read_it():
    assert command("print('x')", "<&-").stdout == b"x\n"
    done = command("sys.stdin.isatty() or sys.stdin.buffer.read()", "<&-")
    assert b"OSError: [Errno 9] standard input is closed" in done.stderr


def test_what_a_program_prints_when_it_ends_arrives():
    """Tasks and handlers are such programs."""
    printing = "__import__('atexit').register(print, 'the end')"
    done = command(f"({printing}, print('x'), sys.exit(3))")

    assert (done.returncode, done.stdout, done.stderr) == (3, b"x\nthe end\n", b"")


def test_an_unbuffered_python_prints_each_line_at_once():
    """A container shows the lines of a handler while it runs, and not only those of one that was not killed."""
    done = command("(print('x'), __import__('os')._exit(0))", PYTHONUNBUFFERED="1")

    assert done.stdout == b"x\n"


@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full"])
def test_an_unwritable_standard_error_leaves_the_status(redirections):
    done = command("(sys.stderr.write('x'), print('x'), sys.exit(3))", redirections)

    assert (done.returncode, done.stdout) == (3, b"x\n")


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)
def test_letters_that_the_encoding_lacks_are_escaped(environment):
    done = command("(print('Zo\\xeb \\udcff'), sys.stderr.write('Zo\\xeb'))", **environment)

    assert (done.returncode, done.stdout, done.stderr) == (0, b"Zo\\xeb \\udcff\n", b"Zo\\xeb")


def test_a_working_directory_that_is_gone_is_named(tmp_path):
    (tmp_path / "gone").mkdir()
    script = 'cd "$1" && rmdir "$1" && exec "$0" -m queueber.cli backup --data-dir x y'
    done = completed(
        ["sh", "-c", script, sys.executable, str(tmp_path / "gone")], env={**os.environ, "PYTHONSAFEPATH": "1"}
    )
    assert (done.returncode, done.stderr) == (
        1,
        "queueber: the working directory was deleted: relative paths cannot be used\n",
    )
