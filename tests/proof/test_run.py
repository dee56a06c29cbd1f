"""The table of the scripts, the required totals, and the last line of each script."""

import importlib.util
import re
import subprocess
import sys
import time
from pathlib import Path

import failpoints
import filedamage
import lying
import mutants
import pytest
from counts import Counts, read_last_line


@pytest.fixture(scope="module")
def run():
    # By its place: other harnesses have a module of that name.
    spec = importlib.util.spec_from_file_location("proof_run", Path(__file__).parent / "run.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def words_of(run, name):
    """Return the options that a part of the proof is called with, and their values."""
    words = next(script.proof for script in run.TABLE if script.name == name).split()
    return {word: int(value) for word, value in zip(words[::2], words[1::2], strict=True) if value.isdigit()}


def test_every_line_of_the_table_has_its_script(run):
    assert [script.name for script in run.TABLE if not script.path.is_file()] == []
    assert len({script.name for script in run.TABLE}) == len(run.TABLE)
    for script in run.TABLE:
        for words in (script.proof, script.soak):
            words.format(seed=1, seconds=1)


def test_there_is_as_much_of_everything_as_was_agreed(run, monkeypatch):
    assert words_of(run, "kill")["--cycles"] >= 200
    assert words_of(run, "powercut")["--cycles"] >= 60
    assert words_of(run, "diskerrors")["--cases"] >= 60
    assert words_of(run, "diskerrors")["--fills"] >= 1
    assert (words_of(run, "lying")["--examples"] >= 2_000, lying.STEPS) == (True, 50)
    assert words_of(run, "sockets")["--examples"] >= 200
    assert words_of(run, "leaks")["--items"] >= 200_000
    assert words_of(run, "failpoints") == words_of(run, "mutants") == {}, "all of them"
    assert (len(failpoints.POINTS) >= 25, len(mutants.MUTANTS) >= 60) == (True, True)
    targets = {script.name: script.target for script in run.TABLE if script.target}
    assert targets == {"kill": 10_000, "powercut": 3_000, "lying": 1_000_000}


def test_files_are_damaged_as_often_as_was_agreed(run, monkeypatch):
    assert words_of(run, "filedamage") == {}, "the program's own figures are those of the proof"
    monkeypatch.setattr(sys, "argv", ["filedamage.py"])
    asked = filedamage.arguments()
    assert (asked.cut_step, asked.flips >= 2_000, asked.files) == (1, True, True)


def test_messages_are_spoilt_as_often_as_was_agreed(run):
    (script,) = [script for script in run.TABLE if script.name == "fuzz"]
    assert words_of(run, "fuzz") == {}, "the program's own figures are those of the proof"
    # Apart: its modules and these have names in common.
    ask = "import run; asked = run.arguments(); print(asked.frames, asked.sessions)"
    done = subprocess.run(
        [sys.executable, "-c", ask], cwd=script.path.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["200000", "5000"]


def test_a_last_line_is_read_as_it_was_written(capsys):
    counts = Counts("kill", target=1_500)
    for _ in range(1_500):
        counts.count()
    counts.void()
    assert counts.end("…") == 0
    said = read_last_line(capsys.readouterr().out)
    assert (said.n, said.unit, said.failures, said.voids, said.skipped) == (1_500, "cycles", 0, 1, ())


def test_a_failure_is_a_status(capsys):
    counts = Counts("kill")
    counts.count()
    counts.count(["lost"])
    assert counts.end("kill.py --seed 1") == 1
    assert read_last_line(capsys.readouterr().out).failures == 1


def test_too_few_that_count_are_a_status(capsys):
    counts = Counts("kill", target=3)
    counts.settle(4, 2, [])
    assert counts.end("…") == 1
    assert "2 of 3 cycles" in capsys.readouterr().out


def test_void_tries_are_made_again_but_not_for_ever():
    counts, voids = Counts("kill", target=50), 20
    sizes = []
    for count in counts.rounds(20):
        sizes.append(count)
        counts.settle(count, min(count, voids), [])
        voids = 0
    assert (sizes, counts.n, counts.voids) == ([20, 20, 20, 10], 50, 20)
    hopeless = Counts("kill", target=50)
    for count in hopeless.rounds(20):
        hopeless.settle(count, count, [])
    assert (hopeless.n, hopeless.voids) == (0, 100)


def test_what_is_found_in_void_tries_is_a_failure():
    counts = Counts("kill", target=5)
    counts.settle(5, 5, ["lost: an item", "torn batch: an add"])
    assert counts.failures == ["lost: an item; torn batch: an add"]
    assert counts.end("…") == 1


def test_three_tries_or_fewer_bound_nothing():
    counts = Counts("leaks", "runs")
    counts.count()
    assert "bound on the rate unknown" in str(counts)
    counts.settle(3, 0, [])
    assert "at most 0.75" in str(counts)


def test_nothing_tried_is_no_success():
    assert Counts("kill").end("…") == 1


def ended(run, folder, *names, soak=False, target=0, timeout=60.0):
    """Return the status and the sums of these scripts in *folder*."""
    runner = run.Runner(soak)
    scripts = [run.Script(name, "", "", file=str(folder / f"{name}.py"), target=target) for name in names]
    runner.run([(script, [], timeout) for script in scripts], 2)
    return runner.end(0.0), runner.sums


GOOD = "good: 5 cases, 0 failures, bound on the rate at most 0.6 (3/n); voids 1"


def test_a_script_that_fails_makes_the_whole_fail(run, tmp_path, capfd):
    (tmp_path / "good.py").write_text(f"print({GOOD!r})")
    (tmp_path / "bad.py").write_text(
        "print('bad: 5 cases, 2 failures, bound on the rate unknown; voids 0'); raise SystemExit(1)"
    )
    (tmp_path / "silent.py").write_text("raise SystemExit(3)")
    status, sums = ended(run, tmp_path, "good", "good")
    assert (status, sums["good"].n, sums["good"].voids) == (0, 10, 2)
    assert ended(run, tmp_path, "good", "bad")[0] == 1
    assert ended(run, tmp_path, "good", "silent")[0] == 1
    assert "RUNS FAILED" in capfd.readouterr().out


def test_failures_are_printed_again_before_the_table(run, tmp_path, capfd):
    (tmp_path / "good.py").write_text(f"print({GOOD!r})")
    (tmp_path / "bad.py").write_text("print('first' + 5_000 * '.'); print('FAILED: lost'); raise SystemExit(1)")
    ended(run, tmp_path, "bad", "good")
    again, _, table = capfd.readouterr().out.rpartition("| Part |")
    assert [again.count(each) for each in ("first", "FAILED: lost", GOOD)] == [1, 2, 1]
    assert again.endswith("FAILED: lost\n\n")
    assert "| good |" in table


def test_a_script_that_hangs_is_ended_and_makes_the_whole_fail(run, tmp_path, capfd, monkeypatch):
    """Allow the script any time until its first output."""
    has_spoken = tmp_path / "has spoken"
    (tmp_path / "hangs.py").write_text(
        f"import pathlib, time; print('so far', flush=True); pathlib.Path({str(has_spoken)!r}).touch(); time.sleep(600)"
    )

    class Patient(subprocess.Popen):
        def communicate(self, *arguments, **how):
            while not has_spoken.exists():
                time.sleep(0.01)
            return super().communicate(*arguments, **how)

    monkeypatch.setattr(run.subprocess, "Popen", Patient)
    assert ended(run, tmp_path, "hangs", timeout=0.5)[0] == 1
    out = capfd.readouterr().out
    assert "HANGS" in out
    assert "so far" in out


def test_what_was_skipped_is_said_with_its_reason(run, tmp_path, capfd):
    (tmp_path / "part.py").write_text(f"print('skipped: full disks: no loop device'); print({GOOD!r})")
    (tmp_path / "all.py").write_text("from counts import Counts\nraise SystemExit(Counts('all').skip('not root'))")
    (tmp_path / "counts.py").write_text((Path(__file__).parent / "counts.py").read_text())
    status, _ = ended(run, tmp_path, "part", "all")
    out = capfd.readouterr().out
    assert status == 0
    assert re.search(r"\| all \| 0 cycles \| 0 \| - \| 0 \| \d+ \| skipped: not root \|", out)
    assert "ok; skipped: full disks: no loop device |" in out
    assert "all held but 2 skipped" in out


def test_a_soak_reports_how_far_it_came(run, tmp_path, capfd):
    (tmp_path / "good.py").write_text(f"print({GOOD!r})")
    ended(run, tmp_path, "good", soak=True, target=1_000)
    assert "| good | 5 of 1,000 cases |" in capfd.readouterr().out
