"""The table of what is run, and the last line that each script of it has to have."""

import importlib.util
import sys
from pathlib import Path

import pytest
from tally import Tally, told


@pytest.fixture(scope="module")
def run():
    # By its place: other harnesses have a module of that name.
    spec = importlib.util.spec_from_file_location("proof_run", Path(__file__).parent / "run.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_line_of_the_table_has_its_script(run):
    assert [line.name for line in run.TABLE if not line.path.is_file()] == []
    assert len({line.name for line in run.TABLE}) == len(run.TABLE)
    for line in run.TABLE:
        for words in (line.proof, line.soak):
            words.format(seed=1, seconds=1)


def test_a_last_line_is_read_as_it_was_written(capsys):
    tally = Tally("kill")
    for _ in range(1_500):
        tally.count()
    tally.void()
    assert tally.end("…") == 0
    said = told(capsys.readouterr().out)
    assert (said.n, said.unit, said.failures, said.voids) == (1_500, "cycles", 0, 1)


@pytest.mark.parametrize("spoil", [lambda tally: tally.count(["lost"]), lambda tally: [tally.void(), tally.void()]])
def test_failures_and_too_many_voids_are_a_status(spoil, capsys):
    tally = Tally("kill")
    tally.count()
    spoil(tally)
    assert tally.end("kill.py --seed 1") == 1
    assert told(capsys.readouterr().out).failures == len(tally.failures)


def test_nothing_tried_is_no_success():
    assert Tally("kill").end("…") == 1


def test_a_script_that_fails_makes_the_whole_fail(run, tmp_path, capfd):
    (tmp_path / "good.py").write_text(
        "print('good: 5 cases, 0 failures, bound on the rate at most 0.6 (3/n); voids 1')"
    )
    (tmp_path / "bad.py").write_text(
        "print('bad: 5 cases, 2 failures, bound on the rate unknown; voids 0'); raise SystemExit(1)"
    )
    (tmp_path / "silent.py").write_text("raise SystemExit(3)")

    def ended(*names):
        runner = run.Runner()
        runner.run([(run.Line(name, "", "", script=str(tmp_path / f"{name}.py")), []) for name in names], 2)
        return runner.end(0.0), runner.sums

    status, sums = ended("good", "good")
    assert (status, sums["good"].n, sums["good"].voids) == (0, 10, 2)
    assert ended("good", "bad")[0] == 1
    assert ended("good", "silent")[0] == 1
    assert "RUNS FAILED" in capfd.readouterr().out
