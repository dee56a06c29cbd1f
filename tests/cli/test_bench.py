"""``queueber bench``: its scenarios on a simulated server, their results and their chart."""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
from simulated_server import RecordedProgress, SimulatedServer

from queueber.cli.bench import bench, chart
from queueber.cli.server_options import ServerSelection
from queueber.cli.session import Interrupted
from queueber.errors import InvalidRequest
from queueber.loadgen.results import BarGroup, bar_chart
from queueber.loadgen.scenarios import SCENARIOS, Bench, Scenario, ScenarioResult


@pytest.fixture
def few(monkeypatch):
    """Return a server whose adds and polls take 10 ms, because a scenario would not let the clock advance otherwise."""
    monkeypatch.setattr("queueber.loadgen.scenarios.PRELOAD_PER_SECOND", 4_000)
    server = SimulatedServer()
    for name in ("add", "poll"):
        method = getattr(server, name)

        def later(*arguments, _method=method, **more):
            answered = server.fleet().sleep(0.01)
            return answered.addCallback(lambda _: _method(*arguments, **more))

        setattr(server, name, later)
    return server


@pytest.mark.slow
def test_every_scenario_counts_and_removes_its_items(few):
    progress = RecordedProgress()
    measuring = Bench(few.fleet(), 0.1, progress, "bench")
    results = few.until(measuring.run())
    assert [result.scenario for result in results] == list(SCENARIOS)
    assert all(result.items > 0 and result.latency.count > 0 for result in results)
    assert results[0].rate == pytest.approx(1 / 0.02, rel=0.5)
    assert not few.model.items
    assert progress.begun == [("bench", pytest.approx(2 * 0.1 * len(SCENARIOS)))]
    assert progress.ends == 1
    # The estimate includes filling and emptying: at the end it is the elapsed time.
    assert measuring.estimated() == pytest.approx(few.clock.seconds())
    assert few.clock.seconds() > 1.2 * 0.1 * len(SCENARIOS)
    assert progress.total == pytest.approx(few.clock.seconds(), rel=0.5)


def test_each_scenario_empties_its_queue(few):
    """The simulated server has one queue, a real one a queue for each scenario, which only that scenario empties."""
    left = {}

    def queue(name):
        left.setdefault(name, len(few.model.items))
        return few

    few.queue = queue
    few.until(Bench(few.fleet(), 0.1, RecordedProgress(), "bench").run())
    assert [*left.values(), len(few.model.items)] == [0] * (len(SCENARIOS) + 1)


@pytest.mark.parametrize("after", [0.05, 0.45])
def test_a_run_that_is_stopped_empties_the_queue_in_use(few, after):
    bench = Bench(few.fleet(), 0.1, RecordedProgress(), "bench")
    few.clock.callLater(after, bench.stop)
    results = few.until(bench.run())
    assert len(results) == (0 if after < 0.1 else len(results))
    assert len(results) < len(SCENARIOS)
    assert bench.queue_in_use is None
    assert few.made > 0
    assert not few.model.items


def test_a_permanent_error_ends_the_run(few):
    def refuse(*_, **__):
        raise InvalidRequest("no")

    few.add = refuse
    with pytest.raises(InvalidRequest):
        few.until(Bench(few.fleet(), 0.5, RecordedProgress(), "bench").run())


@pytest.fixture
def benched(few, monkeypatch):
    """Return a function that runs the command with the simulated server."""
    monkeypatch.setattr("queueber.cli.load.with_fleet", lambda _, __, work, stop=None: few.until(work(few.fleet())))
    target = ServerSelection(run=None, address="nowhere")
    return lambda *arguments: CliRunner().invoke(bench, ("--duration", "0.1", *arguments), obj=target)


def test_a_chart_that_cannot_be_written_is_refused_before_the_measurement(few, benched, tmp_path):
    done = benched("--plot", str(tmp_path / "nowhere" / "x.svg"))
    assert "--plot: " in done.stderr
    assert "x.svg cannot be written: No such file or directory" in done.stderr
    assert (done.stdout, few.made) == ("", 0)


@pytest.mark.slow
def test_the_table_is_printed_before_the_chart_is_written(few, benched, tmp_path, monkeypatch):
    plot = tmp_path / "x.svg"
    plot.write_text("before")

    def full(*_):
        raise OSError("no space")

    monkeypatch.setattr(Path, "write_text", full)
    done = benched("--plot", str(plot))
    assert str(done.exception) == "no space"
    assert len(done.stdout.splitlines()) == 1 + len(SCENARIOS)
    assert plot.read_text() == "before"


@pytest.mark.parametrize("error", [Interrupted(), InvalidRequest("no")])
def test_the_finished_scenarios_are_printed_when_a_run_is_interrupted(few, benched, error):
    def refuse(*_, **__):
        raise error

    remove, removed = few.remove, iter(range(300))
    few.remove = lambda *what: remove(*what) if next(removed, None) is not None else refuse()
    done = benched("--json")
    assert done.exception is error
    assert 0 < len(json.loads(done.stdout)) < len(SCENARIOS)


@pytest.mark.parametrize("value", ["0", "nan", "inf"])
def test_an_invalid_duration_is_refused_with_the_option_s_name(benched, value):
    done = benched("--duration", value)
    assert isinstance(done.exception, SystemExit)
    assert "--duration" in done.stderr.splitlines()[-1]


def test_a_chart_has_a_bar_for_each_figure_on_one_scale():
    drawing = ET.fromstring(bar_chart("<a & b>", [BarGroup("g", {"x": 10.0, "y": 5.0, "z": 0.0}, "ms")]))
    space = "{http://www.w3.org/2000/svg}"
    widths = [float(bar.get("width")) for bar in drawing.findall(f"{space}rect")[1:]]
    assert widths[0] == pytest.approx(2 * widths[1])
    assert widths[2] == 0
    texts = [each.text for each in drawing.findall(f"{space}text")]
    assert texts == ["<a & b>", "g", "x", "10 ms", "y", "5 ms", "z", "0 ms"]


def test_a_result_without_calls_is_drawn():
    result = ScenarioResult(Scenario("t", 1, 0, 1, 1))
    assert result.rate == 0
    assert "<svg" in chart([result])
