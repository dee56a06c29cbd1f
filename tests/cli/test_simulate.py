"""``queueber simulate``: the account of every task, and the detection of a faulty server."""

import json
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from twisted.internet.defer import Deferred

from tests.support.processes import run_command

sys.path.insert(0, str(Path(__file__).parent))
from simulated_server import RecordedProgress, SimulatedServer

from queueber.cli.server_options import ServerSelection
from queueber.cli.session import Interrupted
from queueber.cli.simulate import EXPLAINED, _print_results, simulate
from queueber.client import OutcomeUnknown
from queueber.client.blocking import NoAnswer
from queueber.errors import InvalidRequest, Overloaded
from queueber.loadgen import ledger, simulation
from queueber.loadgen.ledger import Ledger, balanced
from queueber.loadgen.simulation import Simulation, SimulationOptions

TARGET = ServerSelection(run=None, address="nowhere")


def options(**changes):
    usual = {
        "workers": 20,
        "tasks_per_worker": 2,
        "producers": 2,
        "production_rate": 20.0,
        "min_exec": 0.1,
        "max_exec": 0.5,
        "extend_prob": 0.2,
        "expiry_prob": 0.1,
        "duration": 12.0,
        "lease": 1_000,
        "seed": 1,
    }
    return SimulationOptions(**{**usual, **changes})


def simulated(server, **changes):
    progress = RecordedProgress()
    run = Simulation(server.fleet(), options(**changes), progress)
    server.until(run.run())
    return run, progress


def test_every_task_is_accounted_for():
    run, progress = simulated(SimulatedServer())
    produced = run.account["produced"]
    assert produced == pytest.approx(240, abs=2)
    assert run.account["removed"] + run.account["waiting"] + run.account["leased"] == produced
    assert balanced(run.account)
    assert not run.ledger.faults
    assert run.ledger.counts["forgotten"] > 0
    assert run.ledger.counts["extended"] > 0
    assert run.account["duplicates"] > 0
    assert [what for what, _ in progress.begun] == [
        "simulate",
        "letting workers finish",
        "counting the remaining tasks",
        "waiting for the last leases to end",
        "counting the remaining tasks",
    ]
    assert len(progress.lines) == 2
    assert "produced/s" in progress.lines[0]


def test_tasks_that_workers_hold_at_the_end_are_leased_and_found_again():
    run, _ = simulated(SimulatedServer(), expiry_prob=1.0, lease=60_000, workers=1)
    assert run.account["removed"] == 0
    assert run.account["leased"] > 0
    assert run.account["waiting"] + run.account["leased"] == run.account["produced"]


def test_every_row_explains_its_count(capsys):
    """Every counter in the code has an explanation."""
    names = set()
    for module in (ledger, simulation):
        source = Path(module.__file__).read_text()
        names |= set(re.findall(r'counts\["([^"]+)"(?: if \w+ else "([^"]+)")?\]', source)) - {""}
    assert {name for pair in names for name in pair if name} == set(EXPLAINED)
    done, _ = simulated(SimulatedServer())
    _print_results(done, as_json=False)
    rows = capsys.readouterr().out.splitlines()
    for name in done.ledger.counts:
        assert [row for row in rows if row.startswith(f"{name:<20} ") and row.endswith(f"   {EXPLAINED[name]}")]


@pytest.mark.parametrize("when", [0.1, 5])
def test_a_simulation_that_is_stopped_removes_its_tasks(when):
    """Waiting tasks, those of workers, and those whose lease a worker lets expire."""
    server = SimulatedServer()
    run = Simulation(server.fleet(), options(workers=5, expiry_prob=0.5, lease=60_000), RecordedProgress())
    server.clock.callLater(when, run.stop)
    server.until(run.run())
    assert run.ledger.counts["taken"] > 0
    assert not server.model.items
    assert not run.account
    assert not run.ledger.faults
    assert server.clock.seconds() < when + 2


def test_a_seed_repeats_a_run():
    assert simulated(SimulatedServer())[0].ledger.counts == simulated(SimulatedServer())[0].ledger.counts


def test_a_server_that_loses_a_task_is_detected(capsys):
    run, _ = simulated(SimulatedServer(loses={b"7"}))
    assert run.account["lost"] == 1
    assert not balanced(run.account)
    assert not _print_results(run, as_json=False)
    assert "BROKEN: 1 lost: 7" in capsys.readouterr().out
    assert not _print_results(run, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["balanced"], found["faults"]) == (False, {"lost": 1})


def test_the_count_of_remaining_tasks_reports_progress_in_items():
    server = SimulatedServer()
    poll = server.poll

    def slowly(n, **how):
        return server.fleet().sleep(0.5 if n == 500 else 0).addCallback(lambda _: poll(n, **how))

    server.poll = slowly
    run, progress = simulated(server, workers=1)
    (what, done, total), _ = progress.items
    left = run.account["waiting"] + run.account["leased"]
    assert (what, total) == ("counting the remaining tasks", left)
    assert done == run.account["waiting"] > 0


def test_a_server_that_delivers_a_leased_item_is_detected():
    run, _ = simulated(SimulatedServer(repeats={b"7"}))
    assert run.ledger.faults["delivered while another lease on it was live"] > 0


@pytest.mark.parametrize("error", [InvalidRequest("no"), ValueError("a bug")])
def test_a_permanent_error_ends_the_load(error):
    server = SimulatedServer()

    def refuse(*_, **__):
        raise error

    server.add = refuse
    with pytest.raises(type(error)):
        server.until(Simulation(server.fleet(), options(), RecordedProgress()).run())


@pytest.mark.parametrize("workers", [1, 20])
def test_foreign_items_are_counted_apart(workers, capsys):
    """Some of them before a worker has polled them, or all after that."""
    server = SimulatedServer()
    server.clock.callLater(11.9, server.add, *[b"foreign 1", b"foreign 2", b"foreign 3"])
    server.add(b"foreign 4", b"foreign 5")
    run, _ = simulated(server, workers=workers)
    assert run.account["foreign"] == 5
    assert run.account["leased"] >= 0
    assert balanced(run.account)
    assert not _print_results(run, as_json=False)
    assert "5 items were not its own" in capsys.readouterr().out
    # All of them are given back.
    server.clock.advance(1)
    server.expire()
    assert sorted(server.ready) == [f"foreign {number}".encode() for number in range(1, 6)]


def test_refused_adds_are_no_tasks_and_unanswered_ones_may_be_found():
    server = SimulatedServer()
    add, answers = server.add, iter([Overloaded("later"), OutcomeUnknown("lost")])

    def sometimes(*contents):
        error = next(answers, None)
        if isinstance(error, Overloaded):
            raise error
        added = add(*contents)
        if error is not None:
            raise error
        return added

    server.add = sometimes
    run, _ = simulated(server)
    assert (run.ledger.counts["refused"], run.ledger.counts["adds unknown"]) == (1, 1)
    assert run.account["unacknowledged"] == 1
    assert balanced(run.account)
    assert not run.ledger.faults


def gone_after(seconds, server, monkeypatch):
    """Let the server answer no calls from then on."""

    def go():
        for method in ("add", "poll", "remove", "extend"):
            setattr(server, method, lambda *_, **__: Deferred())

    server.clock.callLater(seconds, go)
    monkeypatch.setattr(
        "queueber.cli.load.with_fleet", lambda _, __, work, stop=None: server.until(work(server.fleet()))
    )


SHORT = ("--duration", "4", "--max-exec-time", "0.5", "--lease-validity", "1", "--seed", "1")


@pytest.mark.parametrize("when", [2, 4.9, 6])
def test_a_server_that_is_gone_ends_the_simulation_and_the_known_counts_are_printed(when, monkeypatch):
    server = SimulatedServer()
    gone_after(when, server, monkeypatch)
    done = CliRunner().invoke(simulate, SHORT, obj=TARGET)
    assert isinstance(done.exception, NoAnswer)
    assert "the account cannot be closed" in str(done.exception)
    assert server.clock.seconds() < 40
    assert "waiting for the server" in done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("the account is not closed: ")
    assert last.endswith(" deliveries were not the first; seed 1")


def test_a_simulation_waits_for_a_server_that_is_silent_for_a_while():
    server = SimulatedServer()
    remove = server.remove

    def away():
        server.remove = lambda *what: server.fleet().sleep(10.0).addCallback(lambda _: remove(*what))
        server.clock.callLater(1.0, lambda: setattr(server, "remove", remove))

    server.clock.callLater(11.5, away)
    run, progress = simulated(server)
    assert ("waiting for the server", 20.0) in progress.begun
    assert balanced(run.account)


def test_no_producer_waits_for_its_next_add_after_the_end():
    server = SimulatedServer()
    simulated(server, production_rate=0.01)
    assert server.clock.seconds() < 20


@pytest.mark.parametrize("error", [Interrupted(), InvalidRequest("no")])
def test_the_known_counts_are_printed_when_a_run_is_interrupted(error, monkeypatch):
    server = SimulatedServer()

    def refuse(*_, **__):
        raise error

    server.clock.callLater(3, setattr, server, "add", refuse)
    monkeypatch.setattr(
        "queueber.cli.load.with_fleet", lambda _, __, work, stop=None: server.until(work(server.fleet()))
    )
    done = CliRunner().invoke(simulate, (*SHORT, "--json"), obj=TARGET)
    assert done.exception is error
    found = json.loads(done.stdout)
    assert (found["seed"], found["account"], found["balanced"]) == (1, None, None)
    assert found["counts"]["produced"] > 100


def ledger_with(*steps):
    ledger = Ledger()
    for name, *arguments in steps:
        getattr(ledger, name)(b"t", *arguments)
    return ledger


ADDED = (("asked",), ("produced",))
TAKEN = (*ADDED, ("taken", 1_000, 1_000))
REMOVED = (*TAKEN, ("removing",), ("removed", True))


@pytest.mark.parametrize(
    ("steps", "fault"),
    [
        ((("taken", 1_000, 1_000),), "delivered but never added"),
        ((("asked",), ("taken", 1_000, 1_000), ("refused",)), "delivered although its add was refused"),
        ((*TAKEN, ("taken", 1_999, 1_000)), "delivered while another lease on it was live"),
        ((*REMOVED, ("taken", 5_000, 1_000)), "delivered after its remove was acknowledged"),
        ((*REMOVED, ("removing",), ("removed", True)), "removed twice"),
        ((*REMOVED, ("found",)), "found after its remove was acknowledged"),
        ((*ADDED, ("found",), ("found",)), "found twice"),
        ((("found",),), "found but never added"),
    ],
)
def test_every_fault_has_a_name(steps, fault):
    assert dict(ledger_with(*steps).faults) == {fault: 1}


@pytest.mark.parametrize("steps", [REMOVED, (*TAKEN, ("taken", 2_000, 1_000), ("removing",), ("removed", True))])
def test_correct_deliveries_are_no_faults(steps):
    ledger = ledger_with(*steps)
    assert balanced(ledger.close(0))
    assert not ledger.faults


def test_a_task_that_is_gone_after_an_unanswered_remove_is_unknown():
    account = ledger_with(*TAKEN, ("removing",)).close(0)
    assert (account["unknown"], account["lost"]) == (1, 0)
    assert balanced(account)


def test_a_task_that_is_gone_after_a_late_remove_is_lost():
    assert ledger_with(*TAKEN, ("removing",), ("removed", False)).close(0)["lost"] == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--min-exec-time", "3"), "--min-exec-time is longer than --max-exec-time"),
        (("--lease-validity", "0"), "0 is too short for a lease"),
        (("--workers", "0"), "--workers"),
        (("--expiry-prob", "2"), "--expiry-prob"),
    ],
)
def test_wrong_options_are_one_line(arguments, complaint):
    done = run_command("simulate", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize(
    "option",
    [
        "--production-rate",
        "--min-exec-time",
        "--max-exec-time",
        "--extend-prob",
        "--expiry-prob",
        "--duration",
        "--lease-validity",
    ],
)
def test_nan_and_infinity_are_refused_with_the_option_s_name(option, value):
    done = CliRunner().invoke(simulate, (option, value), obj=TARGET)
    assert isinstance(done.exception, SystemExit)
    assert f"'{option}': {value} is no" in done.stderr
