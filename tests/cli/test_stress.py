"""``queueber stress``: its counts, its output, and the items that it removes."""

import json
import sys
from pathlib import Path

import pytest
from attrs import evolve
from click.testing import CliRunner
from twisted.internet.defer import Deferred, ensureDeferred, succeed

sys.path.insert(0, str(Path(__file__).parent))
from simulated_server import RecordedProgress, SimulatedServer

from queueber.cli import load
from queueber.cli.bench import bench
from queueber.cli.server_options import ServerSelection
from queueber.cli.session import Interrupted
from queueber.cli.simulate import simulate
from queueber.cli.stress import stress
from queueber.client import NotConnected
from queueber.client.blocking import NoAnswer
from queueber.errors import InvalidRequest, Overloaded
from queueber.loadgen.clients import NotEmpty
from queueber.loadgen.results import Latency, percentiles_text
from queueber.loadgen.stress import Stress, StressOptions

TARGET = ServerSelection(run=None, address="nowhere")
RATED = StressOptions(polling_clients=2, adding_clients=2, rate=100.0, duration=11.0, batch=2, size=3)


def stressed(server, plan=RATED):
    progress = RecordedProgress()
    run = server.until(Stress(server.fleet(), plan, progress).run())
    return run, progress


def test_a_rate_is_kept_and_all_items_are_removed():
    server = SimulatedServer()
    run, progress = stressed(server)
    assert run.counts["adds"] == pytest.approx(1_100, abs=10)
    assert run.counts["adds"] == run.counts["polls"] == run.counts["removes"]
    assert run.counts["extends"] == run.polled // 10
    assert run.seconds == pytest.approx(11.0, abs=0.1)
    assert not server.model.items
    assert len(progress.lines) == 2
    assert progress.lines[0].endswith("extends/s")
    assert progress.begun[0] == ("stress", 11.0)


def test_items_left_by_the_pollers_are_removed_after_the_load():
    server = SimulatedServer()
    poll = server.poll
    server.poll = lambda *count, **how: server.fleet().sleep(1.0).addCallback(lambda _: poll(*count, **how))
    run, progress = stressed(server, evolve(RATED, polling_clients=1))
    assert run.counted["removes"] < run.counted["adds"] / 2
    assert run.counts["removes"] == run.counts["adds"]
    assert run.left == 0
    assert not server.ready
    assert progress.items == [("removing the remaining items", progress.begun[1][1], progress.begun[1][1])]
    assert progress.begun[1] == ("removing the remaining items", pytest.approx(1_100 - run.counted["removes"], abs=64))
    # The figures of the load do not include the removal.
    assert run.polled == sum(run.polls_by_deadline.values()) == run.latencies["poll"].count
    assert run.latencies["remove"].count == run.counted["removes"]


def test_without_pollers_the_items_are_removed_too():
    server = SimulatedServer()
    run, _ = stressed(server, evolve(RATED, polling_clients=0))
    assert run.counts["removes"] == run.counts["adds"]
    assert (run.counted["removes"], run.latencies["remove"].count, run.commit_sharing()["polls"]) == (0, 0, 0)
    assert not server.ready


def test_a_load_that_is_stopped_removes_its_items():
    """Adding tasks that sleep until their next add end at once."""
    server, progress = SimulatedServer(), RecordedProgress()
    run = Stress(server.fleet(), evolve(RATED, polling_clients=0, rate=1.0, duration=1_000.0), progress)
    server.clock.callLater(50, run.stop)
    server.until(run.run())
    assert run.seconds == pytest.approx(50, abs=0.1)
    assert run.counts["adds"] == run.counts["removes"] > 10
    assert not server.ready
    assert server.clock.seconds() < 55


@pytest.fixture
def command(monkeypatch):
    """The simulated server, and a function that runs the command with it."""
    server = SimulatedServer()
    fleet = evolve(server.fleet(), queue="q")
    monkeypatch.setattr("queueber.cli.load.with_fleet", lambda _, __, work, stop=None: server.until(work(fleet)))
    return server, lambda *arguments: CliRunner().invoke(stress, ("--rate", "100", *arguments), obj=TARGET)


def test_foreign_items_are_given_back_and_end_the_load(command):
    """Before the answers to the load's own adds, or as the last."""
    server, run = command
    server.clock.callLater(2, server.add, b"foreign")
    done = run("--duration", "10")
    assert isinstance(done.exception, NotEmpty)
    assert str(done.exception) == "the queue q got an item that this load has not added; it is given back"
    server.clock.advance(1)
    server.expire()
    assert b"foreign" in server.ready
    assert server.clock.seconds() < 9
    assert done.stdout.startswith("in 2.")


def test_an_item_delivered_before_the_answer_to_its_add_belongs_to_the_load():
    server = SimulatedServer()
    add = server.add
    server.add = lambda *contents: add(*contents).addCallback(
        lambda ids: server.fleet().sleep(0.3).addCallback(lambda _: ids)
    )
    run, _ = stressed(server)
    assert run.counts["removes"] == run.counts["adds"] > 500


def test_an_error_ends_the_removal_of_the_remaining_items():
    server = SimulatedServer()
    remove, errors = server.remove, iter([InvalidRequest("no")])

    def fail_once(*arguments):
        for error in errors:
            raise error
        return server.fleet().sleep(1.0).addCallback(lambda _: remove(*arguments))

    server.remove = fail_once
    with pytest.raises(InvalidRequest):
        server.until(Stress(server.fleet(), evolve(RATED, polling_clients=0, rate=1_000.0), RecordedProgress()).run())
    assert len(server.ready) > 5_000


def test_removed_items_are_forgotten():
    run, _ = stressed(SimulatedServer())
    assert (run.added, run.adding) == (set(), {})


@pytest.mark.parametrize("tool", [stress, simulate, bench])
def test_a_queue_that_is_not_empty_is_refused_and_left_alone(monkeypatch, tool):
    server = SimulatedServer()
    server.add(b"foreign")
    target = ServerSelection(run=None, address="nowhere", queue="mail")
    monkeypatch.setattr(
        "queueber.cli.load.with_fleet",
        lambda _, name, work, stop=None: server.until(work(evolve(server.fleet(), queue=name))),
    )
    done = CliRunner().invoke(tool, obj=target)
    assert isinstance(done.exception, NotEmpty)
    assert str(done.exception).startswith("the queue mail")
    assert "is not empty, and its items are left alone" in str(done.exception)
    assert "may be the rest of a run that was cut short: without --queue a run takes" in str(done.exception)
    assert done.stdout == ""
    server.clock.advance(1)
    server.expire()
    assert server.ready == [b"foreign"]


def test_a_new_queue_is_not_checked():
    fleet = SimulatedServer().fleet()
    SimulatedServer().until(load.refuse_unless_empty(fleet, TARGET, "stress-1"))
    assert fleet.clients == []


def test_items_that_cannot_be_removed_are_reported_with_the_queue(command):
    server, run = command
    server.loses.add(bytes(64))
    done = run("--duration", "3")
    assert done.exit_code == 0
    assert server.made == pytest.approx(300, abs=2)
    assert done.stdout.endswith(f"{server.made} items are left in the queue q\n")
    assert server.clock.seconds() == pytest.approx(33, abs=2)


@pytest.mark.parametrize("error", [Interrupted(), NotConnected("gone")])
def test_the_results_so_far_are_printed_when_a_load_is_interrupted(command, error):
    server, run = command

    def refuse(*_, **__):
        raise error

    server.clock.callLater(4, setattr, server, "add", refuse)
    done = run("--duration", "10", "--json")
    assert done.exception is error
    found = json.loads(done.stdout)
    assert found["seconds"] == pytest.approx(4, abs=0.1)
    assert found["per_second"]["adds"] == pytest.approx(100, rel=0.1)
    assert (found["queue"], found["left"]) == ("q", 0)


def test_polls_that_shared_a_commit_are_estimated_from_their_leases():
    server = SimulatedServer()
    run = Stress(server.fleet(), RATED, RecordedProgress(), polled=5)
    run.polls_by_deadline.update([10, 10, 10, 11, 12])
    assert run.commit_sharing() == {"polls": 5, "commits": 3, "polls_per_commit": 1.67, "shared": 0.6}


def test_a_load_pauses_when_the_server_is_overloaded():
    server = SimulatedServer()
    add, refusals = server.add, iter([Overloaded("later")] * 3)

    def sometimes(*contents):
        for error in refusals:
            raise error
        return add(*contents)

    server.add = lambda *contents: _deferred(sometimes, contents)
    run, _ = stressed(server)
    assert run.counts["overloaded"] == 3
    assert run.counts["adds"] == run.counts["removes"] > 1_000


@pytest.mark.parametrize("error", [None, Overloaded("too much")])
def test_a_load_uses_the_address_and_tls_options_and_closes_its_connections(monkeypatch, error):
    connected, server = [], SimulatedServer()
    target = ServerSelection(run=None, address="here:1", tls_server_name="queueber")

    class Session:
        def __init__(self, work, *, stop):
            self.work = work

        def run(self):
            results = []
            ensureDeferred(self.work(server.clock)).addBoth(results.append)
            return results[0]

    async def work(fleet):
        fleet.more(2)
        if error:
            raise error
        return "done"

    monkeypatch.setattr(load, "Session", Session)
    monkeypatch.setattr(load, "connect", lambda _, address, **how: connected.append((address, how)) or server)
    found = load.with_fleet(target, None, work)
    assert (found.value if error else found) == (error or "done")
    how = [{"tls": target.tls, "attempts": attempts} for attempts in (1, load.CONNECT_ATTEMPTS, load.CONNECT_ATTEMPTS)]
    assert connected == [("here:1", each) for each in how]
    assert server.closed == 3


@pytest.mark.parametrize("answers", [False, True])
def test_a_silent_server_ends_the_load_after_one_probe(monkeypatch, answers):
    server, connected = SimulatedServer(), []
    asked = Deferred()
    server.extend = lambda *_: asked
    server.close = Deferred

    def connect(*_, **how):
        connected.append(how["attempts"])
        return server

    monkeypatch.setattr(load, "connect", connect)
    results = []
    probing = Deferred.fromCoroutine(load.probe(server.clock, TARGET)).addBoth(results.append)
    server.clock.advance(4.9)
    assert (connected, results) == ([1], [])
    if answers:
        server.close = lambda: succeed(None)
        asked.callback(False)
        assert results == [None]
    else:
        server.clock.advance(0.1)
        assert str(results[0].value) == "no answer from nowhere within 5 s"
        assert isinstance(results[0].value, NoAnswer)
    assert server.clock.getDelayedCalls() == []
    assert probing.called


def _deferred(function, arguments):
    from twisted.internet.defer import maybeDeferred  # noqa: PLC0415

    return maybeDeferred(function, *arguments)


@pytest.mark.parametrize("method", ["add", "poll"])
def test_a_permanent_error_ends_the_load(method):
    server = SimulatedServer()

    def refuse(*_, **__):
        raise InvalidRequest("no")

    setattr(server, method, refuse)
    with pytest.raises(InvalidRequest):
        stressed(server)


def test_percentiles_of_few_durations():
    found = Latency()
    for seconds in (1, 2, 3):
        found.observe(seconds)
    parts = (0.01, 1 / 3, 0.34, 0.5, 0.67, 0.99, 1)
    assert [found.percentile(part) for part in parts] == pytest.approx([1, 1, 2, 2, 3, 3, 3], rel=0.02)


def test_percentiles_are_within_two_per_cent():
    latency = Latency()
    for each in range(1, 10_001):
        latency.observe(each / 1_000)
    assert latency.percentile(0.5) == pytest.approx(5.0, rel=0.02)
    assert latency.percentile(0.99) == pytest.approx(9.9, rel=0.02)
    assert latency.percentile(1.0) == pytest.approx(10.0, rel=0.02)
    assert latency.milliseconds()["max"] == 10_000
    assert Latency().percentile(0.5) == 0
    assert percentiles_text(Latency()) == "none"
    assert percentiles_text(latency).startswith("p50 4,9")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ("--batch", "1000", "--size", "8388608"),
            "--batch times --size is 8,388,608,000 bytes; the limit is 15,728,640 (add_bytes)",
        ),
        (("--duration", "0"), "--duration: 0 is too short"),
        (("--duration", "nan"), "'--duration': nan is not between"),
        (("--rate", "nan"), "'--rate': nan is not a finite number"),
        (("--rate", "inf"), "'--rate': inf is not in the range"),
        (("--rate", "-1"), "'--rate': -1.0 is not in the range"),
    ],
)
def test_impossible_options_are_refused_before_the_load(arguments, complaint):
    done = CliRunner().invoke(stress, arguments, obj=TARGET)
    assert isinstance(done.exception, SystemExit)
    assert complaint in done.stderr
    assert done.stdout == ""
