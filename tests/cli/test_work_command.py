"""A command per item: its input, its environment, and the item's fate by the way it ends."""

import asyncio
import json
import os
import sys
import time

import pytest

from queueber.api import DeliveryFacts, PolledItem
from queueber.cli import work_command
from queueber.cli.work_command import CommandHandler, Tail, command_error, ended, environment, judge
from queueber.fixed_limits import ERROR_BYTES_MAX
from queueber.values import Action
from queueber.worker import WorkItem

ID = bytes(range(16))


def item(contents=b"", *, queue="mail", attempt=1, **facts):
    return WorkItem(queue, b"l" * 16, PolledItem(contents, ID, attempt, 1_800_000_000_000), DeliveryFacts(**facts))


# Without processes


def test_the_facts_are_in_the_environment():
    found = environment(
        item(
            attempt=3,
            failures=1,
            losses=1,
            last_error="cannot\0 print",
            headers=[("task-name", b"resize"), ("Task.Name", b"later"), ("raw", b"\xff"), ("zero", b"a\0b")],
        ),
        {b"PATH": b"/bin", b"QUEUEBER_ATTEMPT": b"9", b"QUEUEBER_HEADER_OLD": b"of the worker's own item"},
    )
    headers = json.loads(found.pop(b"QUEUEBER_HEADERS"))
    assert found == {
        b"PATH": b"/bin",
        b"QUEUEBER_ITEM_ID": b"00010203-0405-0607-0809-0a0b0c0d0e0f",
        b"QUEUEBER_QUEUE": b"mail",
        b"QUEUEBER_ATTEMPT": b"3",
        b"QUEUEBER_FAILURES": b"1",
        b"QUEUEBER_LOSSES": b"1",
        b"QUEUEBER_ADDED_AT_MS": b"1800000000000",
        b"QUEUEBER_LAST_ERROR": b"cannot print",
        b"QUEUEBER_HEADER_TASK_NAME": b"resize",
        b"QUEUEBER_HEADER_RAW": b"\xff",
    }
    assert [each["name"] for each in headers] == ["task-name", "Task.Name", "raw", "zero"]
    assert headers[2]["value"] == {"contents": "/w==", "encoding": "base64"}
    assert headers[3]["value"] == {"contents": "a\0b", "encoding": "utf-8"}


@pytest.mark.parametrize(
    ("status", "text"),
    [(3, "exit status 3"), (-11, "killed by SIGSEGV"), (-9, "killed by SIGKILL"), (-35, "killed by signal 35")],
)
def test_how_a_command_ended(status, text):
    assert ended(status) == text
    verdict = judge(status, "one\ntwo", 10).verdict
    assert (verdict.action, verdict.error) == (Action.FAIL, f"{text}\none\ntwo")


def test_success_and_the_status_to_defer():
    assert judge(0, "a warning", 10) is None
    verdict = judge(75, "not now", 2.5).verdict
    assert (verdict.action, verdict.delay) == (Action.DEFER, 2_500)


def test_the_end_of_a_long_error_is_kept():
    tail = Tail()
    for number in range(100_000):
        tail.add(f"line {number}\n".encode())
    assert tail.text.splitlines() == [f"line {number}" for number in range(99_980, 100_000)]
    tail.add(b"\xff" + "é".encode() * 10_000)
    error = command_error("exit status 1", tail.text)
    assert len(error.encode()) <= ERROR_BYTES_MAX
    assert error.startswith("exit status 1\n")
    assert error.endswith("éé")
    assert command_error("exit status 1", "") == "exit status 1"


# With processes


def run(script, given=None, *arguments, command=("sh", "-c"), **options):
    """Return the verdict about an item for which a shell runs *script*; None: removed."""
    given = item() if given is None else given

    async def main():
        return await CommandHandler([*command, script, *arguments], **options).handle(given)

    decision = asyncio.run(main())
    return None if decision is None else decision.verdict


@pytest.mark.slow
class TestProcesses:
    def test_contents_are_the_input_and_the_output_is_passed_on(self, capfd):
        contents = os.urandom(1_000_000)
        assert run("wc -c; echo $QUEUEBER_QUEUE >&2", item(contents)) is None
        out, err = capfd.readouterr()
        assert (out.strip(), err) == ("1000000", "mail\n")

    def test_discarded_output_is_kept_as_the_error(self, capfd):
        verdict = run("echo out; echo first >&2; echo last >&2; exit 2", quiet=True)
        assert (verdict.action, verdict.error) == (Action.FAIL, "exit status 2\nfirst\nlast")
        assert capfd.readouterr() == ("", "")

    def test_a_command_that_reads_nothing(self):
        assert run("exit 0", item(b"x" * 10_000_000)) is None
        assert run("exec <&-; sleep 0.05", item(b"x" * 10_000_000)) is None

    def test_a_command_that_is_killed(self):
        assert run("echo bye >&2; kill -SEGV $$").error == "killed by SIGSEGV\nbye"

    def test_a_command_that_is_not_there(self):
        verdict = run("", command=("/no/such/command",))
        assert (verdict.action, verdict.error) == (
            Action.FAIL,
            "/no/such/command cannot be run: /no/such/command: No such file or directory",
        )

    def test_a_command_that_takes_too_long_is_ended_with_its_children(self):
        verdict = run("trap 'echo ending >&2; exit 1' TERM; sleep 600 & wait", max_runtime=0.2)
        assert verdict.error == "ended after 0.2 s, its longest run time\nending"

    def test_a_command_that_ignores_sigterm_is_killed(self, monkeypatch):
        monkeypatch.setattr(work_command, "KILL_SECONDS", 0.2)
        begin = time.monotonic()
        verdict = run("trap '' TERM; while true; do sleep 0.01; done", max_runtime=0.2)
        assert verdict.error.startswith("ended after 0.2 s")
        assert time.monotonic() - begin < 10

    def test_a_child_that_goes_on_is_not_waited_for(self):
        begin = time.monotonic()
        verdict = run("sleep 5 & echo no >&2; exit 1")
        assert verdict.error == "exit status 1\nno"
        assert time.monotonic() - begin < 4

    def test_a_cancelled_command_is_ended(self, tmp_path):
        begun, done = tmp_path / "begun", tmp_path / "done"
        script = f"trap 'touch {done}; exit 0' TERM; touch {begun}; sleep 600 & wait"

        async def main():
            handling = asyncio.create_task(CommandHandler(["sh", "-c", script]).handle(item()))
            while not begun.exists():  # noqa: ASYNC110  (of another process)
                await asyncio.sleep(0.01)
            handling.cancel()
            await asyncio.wait([handling])
            return handling.cancelled()

        assert asyncio.run(main())
        assert done.exists()

    @pytest.mark.parametrize("turns", range(1, 7))
    def test_a_command_that_is_cancelled_while_it_starts_is_ended_with_its_children(self, turns):
        """Cancelled in that moment, asyncio would wait for the child, which has the same standard error."""

        async def main():
            handling = asyncio.create_task(CommandHandler(["sh", "-c", "sleep 20 & wait"]).handle(item()))
            for _ in range(turns):
                await asyncio.sleep(0)
            # The shell has time to start its child, and the loop does not see that.
            time.sleep(0.1)  # noqa: ASYNC251  (the loop must not turn)
            handling.cancel()
            await asyncio.wait([handling], timeout=10)
            return handling.cancelled()

        assert asyncio.run(main())

    def test_ctrl_c_at_the_worker_does_not_reach_the_command(self):
        script = "import os, sys; sys.exit(0 if os.getpgrp() == os.getpid() else 1)"
        assert run(script, command=(sys.executable, "-c")) is None
