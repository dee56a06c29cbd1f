"""The fixed scenarios, on a server in a few lines; and what is drawn of them."""

import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from shop_floor import Floor, Heard

from queueber.cli.bench import picture
from queueber.cli.load.plot import Group, svg
from queueber.cli.load.trials import TRIALS, Bench, Result, Trial
from queueber.errors import InvalidRequest


@pytest.fixture
def few(monkeypatch):
    """A floor answers at once, so a trial would never let the clock move: each add takes a moment here."""
    monkeypatch.setattr("queueber.cli.load.trials.PRELOAD_PER_SECOND", 4_000)
    floor = Floor()
    for name in ("add", "poll"):
        method = getattr(floor, name)

        def later(*arguments, _method=method, **more):
            answered = floor.fleet().sleep(0.01)
            return answered.addCallback(lambda _: _method(*arguments, **more))

        setattr(floor, name, later)
    return floor


def test_every_trial_counts_and_leaves_nothing(few):
    heard = Heard()
    results = few.until(Bench(few.fleet(), 0.1, heard, "bench").run())
    assert [result.trial for result in results] == list(TRIALS)
    assert all(result.items > 0 and result.latency.count > 0 for result in results)
    assert results[0].rate == pytest.approx(1 / 0.02, rel=0.5)
    assert not few.ready
    assert not any(items for _, items in few.leases.values())
    assert heard.begun == [("bench", 0.1 * len(TRIALS))]
    assert heard.ends == 1


def test_a_refusal_ends_it(few):
    def refuse(*_, **__):
        raise InvalidRequest("no")

    few.add = refuse
    with pytest.raises(InvalidRequest):
        few.until(Bench(few.fleet(), 0.5, Heard(), "bench").run())


def test_a_picture_has_a_bar_for_each_figure_on_one_scale():
    picture_ = ET.fromstring(svg("<a & b>", [Group("g", {"x": 10.0, "y": 5.0, "z": 0.0}, "ms")]))
    space = "{http://www.w3.org/2000/svg}"
    widths = [float(bar.get("width")) for bar in picture_.findall(f"{space}rect")[1:]]
    assert widths[0] == pytest.approx(2 * widths[1])
    assert widths[2] == 0
    texts = [each.text for each in picture_.findall(f"{space}text")]
    assert texts == ["<a & b>", "g", "x", "10 ms", "y", "5 ms", "z", "0 ms"]


def test_nothing_can_be_drawn_too():
    result = Result(Trial("t", 1, 0, 1, 1))
    assert result.rate == 0
    assert "<svg" in picture([result])
