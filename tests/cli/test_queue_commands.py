"""The commands for queues and their items: calls, output, refusals and confirmations, with a control that records."""

import json
import re
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from twisted.internet.task import Clock

from queueber.api import DeliveryFacts, SettleResponse
from queueber.api.control_types import (
    ItemView,
    LeaseView,
    Listed,
    QueueCounts,
    QueueSettings,
    QueueSummary,
    Redriven,
    SettingsInForce,
    Waits,
)
from queueber.api.fields import answered
from queueber.cli import queue_output, terminal
from queueber.cli.__main__ import queueber
from queueber.cli.commands import MODULES, SECTIONS
from queueber.cli.queue_views import COUNT_LOOK_SECONDS, count_with_progress
from queueber.client import Action, Outcome, Settled, Settlement
from queueber.errors import InvalidRequest, Overloaded, Unimplemented
from queueber.values import ControlOutcome, Death, DeathReason, ItemState

ID, LEASE = bytes(range(16)), bytes(range(16, 32))
ID_TEXT, LEASE_TEXT = "00010203-0405-0607-0809-0a0b0c0d0e0f", "10111213-1415-1617-1819-1a1b1c1d1e1f"
NOW = 1_700_000_000_123
NOW_TEXT = "2023-11-14T22:13:20.123+00:00"
SETTINGS = SettingsInForce(settings=QueueSettings(max_attempts=5, labels=(("team", "post"),)), defaults=["lease_ms"])
ESCAPE = "\x1b[2J"


def item(**fields):
    defaults = {
        "id": ID,
        "state": ItemState.READY,
        "contents": b"hello",
        "contents_bytes": 5,
        "added_at_ms": NOW,
        "due_ms": NOW,
        "place": b"p",
    }
    return ItemView(**{**defaults, **fields})


def redriven(moved, *, more):
    return Redriven(moved=moved, more=more)


DEAD = item(
    state=ItemState.DEAD,
    attempts=2,
    facts=DeliveryFacts(failures=2, last_error=f"no {ESCAPE}", death=Death(DeathReason.ATTEMPTS, NOW, "mail")),
)


class Recorder:
    """An object whose methods record each call and return the next of their answers; the last one stays."""

    def __init__(self, calls, **answers):
        self.calls = calls
        self.answers = answers

    def __getattr__(self, name):
        def call(*arguments, **named):
            self.calls.append((name, *arguments, *([named] if named else [])))
            answers = self.answers[name]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            return fail(answer) if isinstance(answer, Exception) else succeed(answer)

        return call


class Shell:
    """Run the command with recorders in place of a server's queue and control."""

    def __init__(self):
        self.calls = []
        self.names = []
        self.runs = []
        self.control_ = Recorder(
            self.calls,
            stats=[QueueCounts(items=3, ready=1, ready_max=2, delayed=0, delayed_max=1, leased=1, dead=9, bytes=7)],
            settings=[SETTINGS],
            configure=[SETTINGS.settings],
            peek=[Listed([item()], False)],
            get=[item(waits=Waits())],
            cancel=[ControlOutcome.DONE],
            kick=[ControlOutcome.DONE],
            reschedule=[ControlOutcome.DONE],
            purge=[12],
            pause=[None],
            resume=[None],
            redrive=[redriven(3, more=False)],
            leases=[
                Listed([LeaseView(handle=LEASE, items=1, since_ms=NOW, deadline_ms=NOW, peer="10.0.0.1:5")], False)
            ],
            end_lease=[True],
            delete=[ControlOutcome.DONE],
        )
        self.queue_ = Recorder(self.calls, settle=[SettleResponse([Settled(Outcome.DONE, False, NOW)], changed=True)])
        self.client = Recorder(
            self.calls, queues=[Listed([QueueSummary(name="mail", stats=QueueCounts(items=3))], False)]
        )
        self.client.control = self._named(self.control_)
        self.client.queue = self._named(self.queue_)
        self.client.default = self.queue_
        self.client.admin = SimpleNamespace(stats=lambda: fail(Unimplemented("no control socket")))

    def _named(self, what):
        def name(name):
            self.names.append(name)
            return what

        return name

    def _run(self, address, work, tls=None, seconds=None, *, concurrent=False):
        self.runs.append((address, tls, seconds, concurrent))
        results = []
        ensureDeferred(work(self.client)).addBoth(results.append)
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        return results[0]

    def __call__(self, *arguments, stdin="", environment=None):
        return CliRunner(env=environment).invoke(queueber, arguments, input=stdin, obj=self._run)


@pytest.fixture
def shell():
    return Shell()


NAMED = ("--queue", "mail")
CALLS = {
    ("queues",): ("queues", "", {"label": None, "after": "", "limit": 1_000}),
    ("queues", "ma", "--label", "team=post=x", "-n", "5"): (
        "queues",
        "ma",
        {"label": ("team", "post=x"), "after": "", "limit": 5},
    ),
    ("stats", "mail"): ("stats", {"exact": False}),
    ("stats", "mail", "--exact"): ("stats", {"exact": True}),
    ("stats", *NAMED): ("stats", {"exact": False}),
    ("settings", "mail"): ("settings",),
    ("configure", *NAMED, "max-attempts=5", "ttlMs=2h", "max_bytes=1.5 MiB", "drop-expired=yes", "max-items=1,000"): (
        "configure",
        {
            "reset": [],
            "max_attempts": 5,
            "ttl_ms": 7_200_000,
            "max_bytes": 1_572_864,
            "drop_expired": True,
            "max_items": 1_000,
        },
    ),
    ("configure", *NAMED, "max-items=1", "--reset", "max-attempts", "--reset", "ttlMs", "--reset", "labels"): (
        "configure",
        {"reset": ["max_attempts", "ttl_ms", "labels"], "max_items": 1},
    ),
    ("configure", *NAMED, "--reset", "max-attempts"): ("configure", {"reset": ["max_attempts"]}),
    ("configure", *NAMED, "--label", "team=post", "--label", "a="): (
        "configure",
        {"reset": [], "labels": [("team", "post"), ("a", "")]},
    ),
    ("configure", *NAMED, "--no-labels"): ("configure", {"reset": [], "labels": []}),
    ("peek", "mail"): ("peek", None, {"after": b"", "limit": 10, "contents_bytes": 200}),
    ("peek", "mail", "--json"): ("peek", None, {"after": b"", "limit": 10, "contents_bytes": None}),
    ("peek", "mail", "--state", "delayed", "-n", "3", "--after", "70", "--bytes", "0"): (
        "peek",
        ItemState.DELAYED,
        {"after": b"p", "limit": 3, "contents_bytes": None},
    ),
    ("dead", "mail"): ("peek", ItemState.DEAD, {"after": b"", "limit": 10, "contents_bytes": 200}),
    ("get", ID_TEXT, *NAMED): ("get", ID),
    ("fail", ID_TEXT, LEASE_TEXT, "--error", "no", "--delay", "1.5", *NAMED): (
        "settle",
        Settlement(LEASE, ID, Action.FAIL, 1_500, "no"),
        {"timeout_ms": None},
    ),
    ("fail", "all", LEASE_TEXT, *NAMED): ("settle", Settlement(LEASE, b"", Action.FAIL), {"timeout_ms": None}),
    ("defer", ID_TEXT, LEASE_TEXT, *NAMED): ("settle", Settlement(LEASE, ID, Action.DEFER), {"timeout_ms": None}),
    ("defer", ID_TEXT, LEASE_TEXT, "--delay", "0", "--timeout", "2", *NAMED): (
        "settle",
        Settlement(LEASE, ID, Action.DEFER, 0),
        {"timeout_ms": 2_000},
    ),
    ("reject", ID_TEXT, LEASE_TEXT, "--error", "no", *NAMED): (
        "settle",
        Settlement(LEASE, ID, Action.REJECT, None, "no"),
        {"timeout_ms": None},
    ),
    ("reject", "all", LEASE_TEXT, "--yes", *NAMED): (
        "settle",
        Settlement(LEASE, b"", Action.REJECT),
        {"timeout_ms": None},
    ),
    ("cancel", ID_TEXT, "--yes", *NAMED): ("cancel", ID),
    ("kick", ID_TEXT, *NAMED): ("kick", ID),
    ("reschedule", ID_TEXT, "--at", "2023-11-14T23:13:20.123+01:00", *NAMED): ("reschedule", ID, NOW),
    ("redrive", "mail", "--item", ID_TEXT, "--reason", "lost", "--to", "other", "-n", "7"): (
        "redrive",
        [ID],
        {"reason": DeathReason.LOST, "limit": 1, "to": "other"},
    ),
    ("purge", "mail", "--yes"): ("purge", {"dead": False}),
    ("purge", "mail", "--yes", "--dead"): ("purge", {"dead": True}),
    ("pause", "mail"): ("pause", {"adds": False, "polls": True}),
    ("pause", "mail", "--adds"): ("pause", {"adds": True, "polls": False}),
    ("pause", "mail", "--adds", "--polls"): ("pause", {"adds": True, "polls": True}),
    ("resume", "mail"): ("resume", {"adds": True, "polls": True}),
    ("resume", "mail", "--adds"): ("resume", {"adds": True, "polls": False}),
    ("resume", "mail", "--polls"): ("resume", {"adds": False, "polls": True}),
    ("leases", "mail"): ("leases", {"after": b"", "limit": 1_000}),
    ("end-lease", LEASE_TEXT, *NAMED): ("end_lease", LEASE),
    ("delete", "mail", "--yes"): ("delete", {"force": False}),
    ("delete", "mail", "--yes", "--force"): ("delete", {"force": True}),
}


@pytest.mark.parametrize("arguments", CALLS, ids=" ".join)
def test_a_command_makes_its_call(shell, arguments):
    result = shell(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    # The existence of the queue may be checked before.
    made = [each for each in shell.calls if each[0] != "queues" or arguments[0] == "queues"]
    assert made[0] == CALLS[arguments]
    assert shell.names == ["mail"] * (arguments[0] != "queues")


NO_QUEUE = [
    *(("stats",), ("stats", "--exact"), ("peek",), ("peek", "--state", "delayed"), ("dead",), ("leases",)),
    *(("settings",), ("purge", "--yes"), ("purge", "--dead", "--yes"), ("redrive",), ("redrive", "--to", "mailbox")),
    ("delete", "--yes"),
]


@pytest.fixture
def missing(shell):
    """A server that has no queue `mail`."""
    other = QueueSummary(name="mailbox", stats=QueueCounts(items=3))
    shell.client.answers["queues"] = [Listed([other], True)]
    nothing = {"stats": QueueCounts(), "peek": Listed([], False), "leases": Listed([], False), "purge": 0}
    shell.control_.answers |= {name: [answer] for name, answer in nothing.items()}
    shell.control_.answers["delete"] = [ControlOutcome.NOT_FOUND]
    shell.control_.answers["redrive"] = [redriven(0, more=False)]
    return shell


@pytest.mark.parametrize("json_too", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize("arguments", [*NO_QUEUE, ("pause",), ("pause", "--adds"), ("resume",)], ids=" ".join)
def test_a_queue_that_does_not_exist_is_an_error(missing, arguments, json_too):
    result = missing(*arguments, "mail", *json_too)
    assert result.exit_code == 1
    if arguments[0] != "delete":
        assert result.stdout == ""
    if arguments[0] != "delete" or not json_too:
        assert result.stderr.endswith("there is no queue 'mail'\n")
    assert not {each[0] for each in missing.calls} & {"pause", "resume"}


@pytest.mark.parametrize("arguments", NO_QUEUE, ids=" ".join)
def test_with_if_exists_it_is_an_empty_queue(missing, arguments):
    result = missing(*arguments, "mail", "--if-exists")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout


def test_a_queue_is_created_paused_only_on_request(missing):
    assert missing("pause", "mail", "--create").exit_code == 0
    assert ("pause", {"adds": False, "polls": True}) in missing.calls


@pytest.mark.parametrize("arguments", NO_QUEUE[:-1], ids=" ".join)
def test_a_queue_with_waiting_polls_exists(missing, arguments):
    missing.control_.answers["stats"] = [QueueCounts(waiting_polls=1)]
    assert missing(*arguments, "mail").exit_code == 0


@pytest.mark.parametrize("command", ["peek", "dead", "leases", "settings", "redrive", "pause", "resume"])
def test_the_default_queue_always_exists(missing, command):
    assert missing(command).exit_code == 0


def test_the_name_of_a_queue_that_does_not_exist_cannot_control_the_terminal(missing):
    assert ESCAPE not in missing("peek", f"mail{ESCAPE}").stderr


def test_every_command_is_called():
    modules = {"queue_views", "queue_changes", "item_changes", "settle_commands"}
    there = {name for name, module in MODULES.items() if module in modules}
    assert there == {arguments[0] for arguments in CALLS} - {"stats"}


@pytest.mark.parametrize("arguments", CALLS, ids=" ".join)
def test_a_command_prints_one_line_of_json(shell, arguments):
    result = shell(*arguments, *(() if "--json" in arguments else ("--json",)))
    assert result.stdout.count("\n") == 1
    assert isinstance(json.loads(result.stdout), dict)


def test_the_help_has_every_command_under_one_heading():
    names = [name for names in SECTIONS.values() for name in names.split()]
    assert sorted(names) == queueber.list_commands(None)
    shown = CliRunner().invoke(queueber, ["--help"], terminal_width=80).stdout
    assert "Queues and their items:\n  queues      List the queues with their numbers of items.\n" in shown


@pytest.mark.parametrize(
    ("given", "kept"), [("a" * 4_096, "a" * 4_096), ("é" * 2_049 + "a", "é" * 2_047 + "a"), ("\udcff", "\ufffd")]
)
def test_an_error_of_any_length_and_encoding_is_taken(shell, given, kept):
    assert shell("fail", ID_TEXT, LEASE_TEXT, "--error", given).exit_code == 0
    assert shell.calls[0][1].error == kept


TEXT = {
    ("configure", *NAMED, "max-attempts=5"): "max-attempts  5\n",
    ("configure", *NAMED, "--reset", "lease-ms"): "lease-ms  0 ms  default\n",
    ("peek", "mail"): f"item {ID_TEXT} ready, due {NOW_TEXT}; attempts 0: hello\n",
    ("fail", ID_TEXT, LEASE_TEXT): f"failed: due again at {NOW_TEXT}\n",
    ("fail", "all", LEASE_TEXT): "failed\n",
    ("defer", ID_TEXT, LEASE_TEXT): f"deferred: due again at {NOW_TEXT}\n",
    ("cancel", ID_TEXT, "--yes"): f"item {ID_TEXT} cancelled\n",
    ("kick", ID_TEXT): f"item {ID_TEXT} kicked\n",
    ("reschedule", ID_TEXT, "--at", NOW_TEXT): f"item {ID_TEXT} rescheduled to 2023-11-14T22:13:20+00:00\n",
    ("redrive",): "moved 3 items\n",
    ("purge", "mail", "--yes"): "removed 12 items\n",
    ("pause", "mail"): "queue mail: adds not paused, polls not paused\n",
    ("end-lease", LEASE_TEXT): "ended\n",
    ("delete", "mail", "--yes"): "deleted\n",
}


@pytest.mark.parametrize("arguments", TEXT, ids=" ".join)
def test_a_command_prints_text(shell, arguments):
    assert shell(*arguments).stdout.startswith(TEXT[arguments])


def test_without_a_queue_the_commands_use_the_default_queue(shell):
    shell("peek")
    shell("peek", environment={"QUEUEBER_QUEUE": "letters"})
    shell("peek", "mail", environment={"QUEUEBER_QUEUE": "letters"})
    shell("--queue", "mail", "peek", "mail")
    assert shell.names == ["default", "letters", "mail", "mail"]


@pytest.mark.parametrize("where", ["before", "after"])
def test_two_different_queues_are_refused(shell, where):
    given = ("--queue", "letters")
    result = shell(*given, "peek", "mail") if where == "before" else shell("peek", "mail", *given)
    assert (result.exit_code, shell.calls) == (1, [])
    assert "QUEUE is 'mail' and --queue is 'letters': give one of them." in result.stderr


@pytest.mark.parametrize("command", ["purge", "delete"])
def test_a_queue_is_emptied_or_deleted_only_by_its_name(shell, command):
    result = shell(command, "--yes")
    assert (result.exit_code, result.stderr) == (1, "queueber: Missing argument 'QUEUE'.\n")
    assert shell(command, "--yes", "--queue", "mail").exit_code == 0
    assert shell.names == ["mail"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("purge", "mail"),
        ("delete", "mail"),
        ("cancel", ID_TEXT),
        ("cancel", ID_TEXT, LEASE_TEXT),
        ("reject", "all", LEASE_TEXT),
    ],
    ids=" ".join,
)
class TestConfirmation:
    def test_is_needed(self, shell, arguments):
        result = shell(*arguments)
        assert (result.exit_code, result.stdout, shell.calls) == (1, "", [])
        assert result.stderr.endswith("There is no terminal to ask on; --yes confirms it.\n")

    @pytest.mark.parametrize(("answer", "calls"), [("y\n", 1), ("n\n", 0), ("\n", 0)])
    def test_is_asked_for_on_a_terminal(self, shell, arguments, answer, calls, monkeypatch):
        monkeypatch.setattr(terminal, "is_terminal", lambda stream: True)
        result = shell(*arguments, stdin=answer)
        assert (bool(shell.calls), result.exit_code) == (bool(calls), 1 - calls)
        assert "? [y/N]" in result.stderr
        assert calls or result.stderr.endswith("queueber: nothing was done\n")


REFUSED = {
    ("stats", "--exact"): "--exact is for the items of a QUEUE",
    ("queues", "--label", "team"): "'team' is not NAME=VALUE",
    ("queues", "--label", "=post"): "'=post' is not NAME=VALUE",
    ("queues", "--interval", "1"): "--interval is for --watch only",
    ("queues", "--watch", "--interval", "0"): "0 is too short",
    ("configure",): "Missing argument 'NAME=VALUE...'",
    ("configure", "max-attempts"): "'max-attempts' is not NAME=VALUE",
    ("configure", "attempts=5"): "there is no setting 'attempts'; settings are lease-ms, max-lease-ms,",
    ("configure", "labels=x"): "labels are given by --label NAME=VALUE",
    ("configure", "max-attempts=many"): "max-attempts: 'many' is not a number",
    ("configure", "ttl-ms=5 MiB"): "ttl-ms: '5 MiB' is not a number with or without one of y, d, h, min, s, ms",
    ("configure", "drop-expired=2"): "drop-expired is '2'; it must be yes or no",
    ("configure", "ttl-ms=1", "ttlMs=2"): "ttl-ms is given twice",
    ("configure", "--reset", "attempts"): "there is no setting 'attempts'; settings are lease-ms, max-lease-ms,",
    ("configure", "ttl-ms=1", "--reset", "ttlMs"): "ttl-ms is both changed and reset",
    ("configure", "--no-labels", "--reset", "labels"): "labels is both changed and reset",
    ("configure", "--label", "a=b", "--no-labels"): "--label and --no-labels contradict each other",
    ("peek", "--state", "leased"): "'leased' is not one of",
    ("peek", "--after", "x"): "'x' is not a place; it must be hexadecimal digits",
    ("get", "x"): "'x' is neither a UUID nor 32 hexadecimal digits",
    ("fail", "every", LEASE_TEXT): "'every' is neither 'all', a UUID nor 32 hexadecimal digits",
    ("cancel", "--yes"): "Missing argument 'ITEM...'",
    ("reschedule", ID_TEXT): "Give one of --at and --in",
    ("reschedule", ID_TEXT, "--at", NOW_TEXT, "--in", "1"): "Give one of --at and --in",
    ("reschedule", ID_TEXT, "--at", "noon"): "'noon' is not a date and time",
    ("reschedule", ID_TEXT, "--at", "1969-01-01T00:00+00:00"): "is before 1970",
    ("redrive", "--reason", "boredom"): "'boredom' is not one of",
}


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_wrong_arguments_are_one_line(shell, arguments):
    result = shell(*arguments)
    assert (result.exit_code, result.stdout, shell.calls) == (1, "", [])
    assert REFUSED[arguments] in result.stderr
    assert result.stderr.count("\n") == 1


NOTHING_CHANGED = {
    ("get", ID_TEXT): (None, "queueber: there is no such item in the queue default\n"),
    ("cancel", ID_TEXT, "--yes"): (
        ControlOutcome.NOT_FOUND,
        f"queueber: item {ID_TEXT} not cancelled: there is no such item\n",
    ),
    ("kick", ID_TEXT): (
        ControlOutcome.LEASED,
        f"queueber: item {ID_TEXT} not kicked: it is leased, and its worker decides\n",
    ),
    ("reschedule", ID_TEXT, "--at", NOW_TEXT): (
        ControlOutcome.NOT_FOUND,
        f"queueber: item {ID_TEXT} not rescheduled to {NOW_TEXT[:19]}+00:00: there is no such item, or it is dead\n",
    ),
    ("end-lease", LEASE_TEXT): (False, "queueber: not ended: there is no such lease in the queue default\n"),
    ("delete", "mail", "--yes"): (
        ControlOutcome.NOT_EMPTY,
        "queueber: not deleted: it has items or waiting polls; --force deletes it with them\n",
    ),
    ("delete", "mail", "--yes", "--force"): (
        ControlOutcome.NOT_FOUND,
        "queueber: not deleted: there is no queue 'mail'\n",
    ),
}


@pytest.mark.parametrize("arguments", NOTHING_CHANGED, ids=" ".join)
def test_a_call_that_changed_nothing_ends_with_1_in_json_too(shell, arguments):
    answer, said = NOTHING_CHANGED[arguments]
    shell.control_.answers[arguments[0].replace("-", "_")] = [answer]
    result = shell(*arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", said)
    result = shell(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (1, "")
    json.loads(result.stdout)


@pytest.mark.parametrize(
    ("settled", "status", "said"),
    [
        (Settled(Outcome.LEASE_LOST), 1, "queueber: not failed: the lease has ended, or is of another queue\n"),
        (Settled(Outcome.NOT_FOUND), 1, "queueber: not failed: the lease does not hold this item\n"),
        (Settled(Outcome.DONE, True), 0, "failed: that was its last attempt, and it is among the dead items\n"),
    ],
)
def test_a_settlement_has_its_outcome_as_text_status_and_json(shell, settled, status, said):
    shell.queue_.answers["settle"] = [SettleResponse([settled], changed=False)]
    result = shell("fail", ID_TEXT, LEASE_TEXT)
    assert (result.exit_code, result.output) == (status, said)
    result = shell("fail", ID_TEXT, LEASE_TEXT, "--json")
    names = {Outcome.DONE: "done", Outcome.LEASE_LOST: "leaseLost", Outcome.NOT_FOUND: "notFound"}
    expected = {"outcome": names[settled.outcome], "died": settled.died, "dueMs": 0}
    assert (result.exit_code, json.loads(result.stdout)) == (status, expected)


def test_what_a_newer_server_answers_is_called_unknown(shell):
    unknown = {kind: answered(7, kind) for kind in (Outcome, DeathReason, ControlOutcome)}
    shell.queue_.answers["settle"] = [SettleResponse([Settled(unknown[Outcome])], changed=False)] * 2
    said = "queueber: not failed: the server answers Outcome 7, which this client does not know\n"
    assert shell("fail", ID_TEXT, LEASE_TEXT).stderr == said
    assert json.loads(shell("fail", ID_TEXT, LEASE_TEXT, "--json").stdout)["outcome"] == "unknown7"
    shell.control_.answers.update(cancel=[unknown[ControlOutcome]], delete=[unknown[ControlOutcome]])
    said = "the server answers ControlOutcome 7, which this client does not know\n"
    assert shell("cancel", ID_TEXT, "--yes").stderr.endswith(said)
    assert shell("delete", "mail", "--yes").stderr == f"queueber: not deleted: {said}"
    facts = DeliveryFacts(death=Death(unknown[DeathReason], NOW, "mail"))
    shell.control_.answers["peek"] = [Listed([item(state=ItemState.DEAD, facts=facts)], False)]
    said = f"died {NOW_TEXT}, the server answers DeathReason 7, which this client does not know"
    assert said in shell("dead").stdout


def test_a_rejected_item_is_among_the_dead(shell):
    shell.queue_.answers["settle"] = [SettleResponse([Settled(Outcome.DONE, True)], changed=True)]
    assert shell("reject", ID_TEXT, LEASE_TEXT).stdout == "rejected: it is among the dead items\n"


def test_an_item_that_the_server_refuses_to_change_does_not_keep_the_others(shell):
    refusal = InvalidRequest("dueMs is 9; it must be earlier")
    shell.control_.answers["reschedule"] = [refusal, ControlOutcome.DONE] * 2
    result = shell("reschedule", ID_TEXT, LEASE_TEXT, "--at", NOW_TEXT)
    assert (result.exit_code, len(shell.calls)) == (1, 2)
    assert result.stdout.startswith(f"item {LEASE_TEXT} rescheduled to ")
    assert result.stderr.startswith(f"queueber: item {ID_TEXT} not rescheduled to ")
    assert result.stderr.endswith(": dueMs is 9; it must be earlier\n")
    result = shell("reschedule", ID_TEXT, LEASE_TEXT, "--at", NOW_TEXT, "--json")
    assert (result.exit_code, result.stderr) == (1, "")
    assert json.loads(result.stdout)["outcomes"] == [
        {"id": ID_TEXT, "outcome": "failed", "error": "dueMs is 9; it must be earlier"},
        {"id": LEASE_TEXT, "outcome": "done"},
    ]


def test_several_items_are_changed_one_by_one(shell):
    shell.control_.answers["cancel"] = [ControlOutcome.DONE, ControlOutcome.LEASED]
    result = shell("cancel", ID_TEXT, LEASE_TEXT, "--yes")
    assert (result.exit_code, shell.calls) == (1, [("cancel", ID), ("cancel", LEASE)])
    assert (result.stdout.count("\n"), result.stderr.count("\n")) == (1, 1)
    shell.control_.answers["cancel"] = [ControlOutcome.DONE, ControlOutcome.LEASED]
    assert json.loads(shell("cancel", ID_TEXT, LEASE_TEXT, "--yes", "--json").stdout)["outcomes"] == [
        {"id": ID_TEXT, "outcome": "done"},
        {"id": LEASE_TEXT, "outcome": "leased"},
    ]


def test_an_error_of_an_old_server_is_one_line(shell):
    shell.control_.answers["purge"] = [Unimplemented("the server does not know QueueControl.purge")]
    result = shell("purge", "mail", "--yes")
    assert (result.exit_code, result.stderr) == (1, "queueber: the server does not know QueueControl.purge\n")


def test_a_call_has_a_time_limit(shell):
    shell("peek", "--timeout", "1.5")
    shell("queues", environment={"QUEUEBER_TIMEOUT": "2"})
    assert [seconds for _, _, seconds, _ in shell.runs] == [1.5, 2]


class TestLists:
    def test_all_parts_of_a_list_are_asked_for(self, shell):
        first, second = (QueueSummary(name=name, stats=QueueCounts()) for name in "ab")
        shell.client.answers["queues"] = [Listed([first], True), Listed([second], False)]
        found = json.loads(shell("queues", "--json").stdout)
        assert [each["name"] for each in found["queues"]] == ["a", "b"]
        assert [named["after"] for _, _, named in shell.calls] == ["", "a"]
        assert found["more"] is False

    def test_a_limit_ends_a_list(self, shell):
        shell.control_.answers["leases"] = [Listed([LeaseView(handle=LEASE, items=1, session=True)], True)]
        result = shell("leases", "-n", "2")
        assert [named for _, named in shell.calls] == [{"after": b"", "limit": 2}, {"after": LEASE, "limit": 1}]
        lines = result.stdout.splitlines()
        assert lines[-1] == "there are more"
        assert re.split(r" {2,}", lines[1]) == [
            LEASE_TEXT,
            "1",
            "before the server's start",
            "its session ends",
            "not known any more",
        ]

    def test_the_rest_of_the_items_is_reached_by_the_place_that_is_printed(self, shell):
        shell.control_.answers["peek"] = [Listed([item(place=b"\x01\xff")], True)]
        result = shell("peek", "-n", "1")
        assert result.stderr == "there are more: --after 01ff\n"
        assert json.loads(shell("peek", "-n", "1", "--json").stdout)["after"] == "01ff"

    @pytest.mark.parametrize(
        ("command", "said"), [("peek", "no items\n"), ("leases", "no leases\n"), ("queues", "no queues\n")]
    )
    def test_an_empty_list_is_no_error(self, shell, command, said):
        for owner in (shell.control_, shell.client):
            owner.answers[command] = [Listed([], False)]
        result = shell(command)
        assert (result.exit_code, result.stdout) == (0, said)


class TestRedrive:
    def test_goes_on_until_all_dead_items_of_its_beginning_have_moved(self, shell):
        shell.control_.answers["stats"] = [QueueCounts(dead=2_500)]
        shell.control_.answers["redrive"] = [
            redriven(1_000, more=True),
            redriven(700, more=True),
            redriven(800, more=True),
        ]
        result = shell("redrive", "mail")
        assert (result.exit_code, result.output) == (0, "moved 2,500 items\n")
        assert [each[-1]["limit"] for each in shell.calls[1:]] == [1_000, 1_000, 800]

    def test_moves_no_more_than_its_limit(self, shell):
        shell.control_.answers["redrive"] = [redriven(2, more=True)]
        assert shell("redrive", "mail", "-n", "2", "--json").stdout == '{"moved": 2}\n'
        assert shell.calls[1:] == [("redrive", [], {"reason": DeathReason.NONE, "limit": 2, "to": ""})]

    def test_calls_with_as_many_ids_as_a_call_can_have(self, shell):
        ids = [number.to_bytes(16, "big") for number in range(1_001)]
        shell.control_.answers["redrive"] = [redriven(1_000, more=False), redriven(1, more=False)]
        shell("redrive", "mail", *(word for each in ids for word in ("--item", each.hex())))
        assert [each[1] for each in shell.calls] == [ids[:1_000], ids[1_000:]]

    def test_ends_when_a_call_moves_nothing(self, shell):
        shell.control_.answers["redrive"] = [redriven(0, more=True)]
        assert shell("redrive").stdout == "moved 0 items\n"

    def test_states_what_had_been_done_before_an_error(self, shell):
        shell.control_.answers["redrive"] = [redriven(1, more=True), Overloaded("maxItems of 'mail' is reached")]
        result = shell("redrive", "mail")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "queueber: 1 item had been moved\nqueueber: maxItems of 'mail' is reached\n"

    def test_shows_its_progress_on_a_terminal(self, shell, monkeypatch):
        shown = []
        monkeypatch.setattr(terminal.LoadDisplay, "begin", lambda _, *what, items: shown.append((*what, items)))
        monkeypatch.setattr(terminal.LoadDisplay, "at", lambda _, done: shown.append(done))
        shell.control_.answers["redrive"] = [redriven(4, more=True), redriven(5, more=False)]
        shell("redrive", "mail")
        assert shown == [("Moving", 9, True), 4, 9]


class TestExactCount:
    """Progress of `queueber stats --exact` on a terminal."""

    @pytest.fixture
    def shown(self, monkeypatch):
        shown = []
        monkeypatch.setattr(terminal.LoadDisplay, "begin", lambda _, *what, items: shown.append((*what, items)))
        monkeypatch.setattr(terminal.LoadDisplay, "at", lambda _, done: shown.append(done))
        monkeypatch.setattr(terminal.LoadDisplay, "end", lambda _: shown.append("end"))
        return shown

    def test_is_that_of_another_call(self, shown):
        counted, clock = Deferred(), Clock()
        looks = [0, 3, 7]

        def stats(*, exact=False):
            return counted if exact else succeed(QueueCounts(items=9, leased=1, counting=looks.pop(0)))

        counting = ensureDeferred(count_with_progress(SimpleNamespace(stats=stats), clock))
        clock.pump([COUNT_LOOK_SECONDS] * 3)
        assert shown == [0, ("Counting", 8, True), 3, 7]
        counted.callback(QueueCounts(items=9, ready=8))
        assert (counting.result.ready, shown[-1], clock.getDelayedCalls()) == (8, "end", [])

    def test_is_given_up_with_the_connection(self, shown):
        counted, clock = Deferred(), Clock()

        def stats(*, exact=False):
            return counted if exact else fail(Overloaded("no"))

        counting = ensureDeferred(count_with_progress(SimpleNamespace(stats=stats), clock))
        clock.advance(COUNT_LOOK_SECONDS)
        counted.errback(Overloaded("no"))
        assert counting.result.check(Overloaded)
        counting.addErrback(lambda _: None)
        assert shown == ["end"]

    @pytest.mark.parametrize("words", [("stats", "mail", "--exact"), ("stats", "mail")])
    def test_needs_a_terminal(self, shell, words, monkeypatch):
        assert shell(*words).exit_code == 0
        monkeypatch.setattr("queueber.cli.control_commands.is_terminal", lambda _: True)
        assert shell(*words).exit_code == 0
        assert [concurrent for *_, concurrent in shell.runs] == [False, "--exact" in words]


class TestText:
    def test_everything_about_an_item(self, shell):
        waits = Waits(ahead=3, queue_paused=True, leases_full=True)
        facts = DeliveryFacts(
            failures=1,
            losses=2,
            first_leased_at=NOW,
            last_error="no",
            headers=((ESCAPE, b"\xff"),),
            death=Death(DeathReason.LOST, NOW, "mail"),
        )
        shell.control_.answers["get"] = [
            item(
                state=ItemState.DELAYED,
                attempts=3,
                facts=facts,
                waits=waits,
                expires_at_ms=NOW,
                contents="Straße".encode()[:5],
                contents_bytes=7,
            )
        ]
        rows = [tuple(line.split("  ", 1)) for line in shell("get", ID_TEXT, *NAMED).stdout.splitlines()]
        assert [(name, value.strip()) for name, value in rows] == [
            ("item", ID_TEXT),
            ("queue", "mail"),
            ("state", "delayed"),
            ("why", "the polls of the queue are paused"),
            ("why", "the server's limit of leased items is reached"),
            ("why", "it is not due yet"),
            ("why", "at most 3 items before it"),
            ("why", "no poll is waiting in the queue"),
            ("due", NOW_TEXT),
            ("added", NOW_TEXT),
            ("attempts", "3, with 1 failure and 2 lost leases"),
            ("first leased", NOW_TEXT),
            ("last error", "no"),
            ("died", f"{NOW_TEXT} in mail: the lease of its last attempt ended by itself"),
            ("expires", NOW_TEXT),
            ("header", '"\\u001b[2J": base64 /w=='),
            ("contents", "7 bytes: Stra ... (3 more bytes)"),
        ]

    @pytest.mark.parametrize(
        ("lease", "why"),
        [
            (
                LeaseView(handle=LEASE, items=1, since_ms=NOW, deadline_ms=NOW, peer=ESCAPE),
                '"\\u001b[2J" since 2023-11-14T22:13:20+00:00 until 2023-11-14T22:13:20+00:00',
            ),
            (
                LeaseView(handle=LEASE, items=1, session=True),
                "a peer that is not known any more since before the server's start until its session ends",
            ),
        ],
    )
    def test_the_worker_of_a_leased_item(self, shell, lease, why):
        shell.control_.answers["get"] = [item(state=ItemState.LEASED, waits=Waits(lease=lease))]
        assert f"why       leased by {why}, handle {LEASE_TEXT}\n" in shell("get", ID_TEXT).stdout
        assert json.loads(shell("get", ID_TEXT, "--json").stdout)["item"]["waits"]["lease"]["handle"] == LEASE_TEXT

    def test_a_dead_item_has_its_reason_and_its_error(self, shell):
        shell.control_.answers["peek"] = [Listed([DEAD], False)]
        assert shell("dead").stdout.splitlines() == [
            f"item {ID_TEXT} died {NOW_TEXT}, its last attempt failed; attempts 2: hello",
            '  last error: "no \\u001b[2J"',
        ]
        (found,) = json.loads(shell("dead", "--json").stdout)["items"]
        assert found["death"] == {"reason": "attempts", "diedAtMs": NOW, "queue": "mail"}
        shell.control_.answers["get"] = [item(state=ItemState.DEAD, facts=DEAD.facts, waits=Waits())]
        assert "why         it is dead until it is redriven\n" in shell("get", ID_TEXT).stdout

    def test_bounds_are_shown_as_bounds(self, shell):
        lines = shell("stats", "mail").stdout.splitlines()
        assert lines[2:5] == ["  ready        1-2", "  delayed      0-1", "  leased       1"]
        assert "oldest due     none, or not known" in lines
        stats = json.loads(shell("stats", "mail", "--json").stdout)["stats"]
        assert (stats["ready"], stats["readyMax"]) == (1, 2)

    def test_a_line_for_each_queue(self, shell, monkeypatch):
        monkeypatch.setattr(
            queue_output, "datetime", SimpleNamespace(now=lambda _: SimpleNamespace(timestamp=lambda: 10))
        )
        counts = QueueCounts(items=1_200, ready=7, ready_max=9, oldest_due_ms=4_000, polls_paused=True)
        shell.client.answers["queues"] = [
            Listed(
                [
                    QueueSummary(name=f"{ESCAPE}[red]", stats=counts, labels=(("team", "post"),)),
                    QueueSummary(name="b", stats=QueueCounts(oldest_due_ms=70_000)),
                    QueueSummary(name="c", stats=QueueCounts()),
                ],
                False,
            )
        ]
        assert [" ".join(line.split()) for line in shell("queues").stdout.splitlines()] == [
            "queue items ready delayed leased dead bytes polls oldest due notes",
            '"\\u001b[2J[red]" 1,200 7-9 0 0 0 0 0 6.0 s ago polls paused; team=post',
            "b 0 0 0 0 0 0 0 in 1.0 min",
            "c 0 0 0 0 0 0 0 -",
        ]

    def test_settings_with_their_units_and_labels(self, shell):
        shell.control_.answers["settings"] = [SETTINGS]
        lines = shell("settings", "mail").stdout.splitlines()
        assert {"lease-ms         0 ms       default", "max-attempts     5"} <= {*lines}
        assert {"backoff-cap-ms   1 h", "backoff-on-loss  no", "labels           team=post"} <= {*lines}
        found = json.loads(shell("settings", "mail", "--json").stdout)
        assert (found["defaults"], found["settings"]["labels"]) == (["leaseMs"], {"team": "post"})
