"""Settings: their defaults, what can be configured, and what stays after a start."""

import pytest
from attrs import fields

from queueber.broker.settings import DEFAULT_SETTINGS, FIELDS, SPAN_MAX, QueueConfig, check_changes
from queueber.capnp.layout import layout
from queueber.errors import InvalidRequest


def test_there_is_a_setting_for_each_field_of_the_schema_with_its_default():
    declared = layout("Settings").read(layout("Settings").build())
    assert list(FIELDS) == list(declared)
    defaults = {each.metadata["setting"].wire: getattr(DEFAULT_SETTINGS, each.name) for each in fields(QueueConfig)}
    assert defaults == {**declared, "labels": ()}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nothing": 1}, "fields has 'nothing', which is no setting; settings are leaseMs, "),
        ({"addsPaused": True}, "fields has addsPaused, which only pause and resume change"),
        ({"ttlMs": SPAN_MAX + 1}, r"ttlMs is 3,162,240,000,001; it must be 0 to 100 y"),
        ({"maxAttempts": 2**32}, r"maxAttempts is 4,294,967,296; it must be 0 to 4,294,967,295"),
        ({"labels": tuple((f"{n}", "") for n in range(17))}, "labels are 17; the limit is 16"),
        ({"labels": (("", ""),)}, r"labels\[0\].name is 0 bytes of UTF-8; it must be 1 to 63"),
        ({"labels": (("ü" * 32, ""),)}, r"labels\[0\].name is 64 bytes of UTF-8; it must be 1 to 63"),
        ({"labels": (("a", "x" * 64),)}, r"labels\[0\].value is 64 bytes of UTF-8; the limit is 63"),
        (
            {"labels": (("a", ""), ("a", "b"))},
            r"labels\[1\].name is 'a', which an earlier label has; names must differ",
        ),
    ],
)
def test_what_cannot_be_had_is_refused(harness, changes, words):
    """Trap 7: no value is cut to its range, and the other changes are not made either."""
    with pytest.raises(InvalidRequest, match=words):
        check_changes(changes)
    with pytest.raises(InvalidRequest, match=words):
        harness.configure(maxItems=3, **changes)
    assert harness.queue.settings is DEFAULT_SETTINGS


def test_settings_last_and_others_have_the_defaults_of_the_server(harness):
    reply = harness.configure(maxItems=3, labels=(("team", "blue"),))
    assert reply == QueueConfig(max_items=3, labels=(("team", "blue"),))
    assert harness.configure(maxItems=4, backoffOnLoss=True).labels == (("team", "blue"),)

    harness.crash()

    assert harness.queue.settings == QueueConfig(max_items=4, backoff_on_loss=True, labels=(("team", "blue"),))
    assert (harness.queue.items, harness.broker.queue("other").settings) == (0, DEFAULT_SETTINGS)
    assert list(harness.broker.queues.names.search(label=("team", "blue"))) == ["default"]


@pytest.mark.parametrize(
    ("reset", "words"),
    [
        (["nothing"], "reset has 'nothing', which is no setting; settings are leaseMs, "),
        (["pollsPaused"], "reset has pollsPaused, which only pause and resume change"),
        (["maxItems"], "reset has maxItems, which fields has, too; a setting is changed or reset"),
    ],
)
def test_what_cannot_be_reset_is_refused(harness, reset, words):
    with pytest.raises(InvalidRequest, match=words):
        harness.configure(maxItems=3, reset=reset)
    assert harness.queue.settings is DEFAULT_SETTINGS


def test_a_setting_that_is_reset_has_the_default_of_the_server_that_runs(make_harness):
    harness = make_harness(settings=QueueConfig(max_items=9, max_attempts=7))
    harness.configure(maxItems=3, maxAttempts=2, labels=(("team", "blue"),))
    assert harness.configure(reset=["maxItems", "labels", "ttlMs"]) == QueueConfig(max_items=9, max_attempts=2)
    assert harness.rows.settings == {harness.queue.id: {"maxAttempts": 2}}
    assert list(harness.broker.queues.names.search("", label=("team", "blue"), after="")) == []

    harness.crash()

    assert harness.queue.settings == QueueConfig(max_items=9, max_attempts=2)


def test_a_queue_without_configured_settings_has_no_row_for_them(harness):
    harness.configure(maxItems=3)
    assert harness.configure(reset=["maxItems"]) == DEFAULT_SETTINGS
    assert harness.rows.settings == {}
    plan = harness.broker.lifecycle.configure(harness.queue, {}, ["maxItems"])
    assert (plan.writes, plan.reply) == ([], DEFAULT_SETTINGS)


def test_a_reset_alone_makes_no_queue(harness):
    harness.configure(name="another", reset=["maxItems"])
    assert harness.broker.queue("another").number is None


def test_the_server_has_other_defaults(make_harness):
    harness = make_harness(settings=QueueConfig(max_attempts=1, max_items=9))
    harness.add(b"a")
    assert harness.configure(maxItems=3) == QueueConfig(max_attempts=1, max_items=3)
    harness.lose()
    assert harness.queue.dead.settings is DEFAULT_SETTINGS


def test_a_queue_beyond_the_limit_of_queues_is_not_configured(make_harness):
    harness = make_harness(queues=1)
    harness.add(b"")
    with pytest.raises(Exception, match=r"the limit is 1 \(queues\)"):
        harness.configure(name="another", maxItems=1)


def test_a_queue_beyond_the_limit_of_queues_can_be_resumed_because_that_changes_nothing(make_harness):
    harness = make_harness(queues=1)
    harness.add(b"")
    queue = harness.broker.queue("another")
    plan = harness.broker.lifecycle.pause(queue, adds=True, polls=True, paused=False)
    assert (plan.writes, plan.reply) == ([], DEFAULT_SETTINGS)


def test_dead_items_and_no_changes(harness):
    lifecycle, queues = harness.broker.lifecycle, harness.broker.queues
    assert isinstance(lifecycle.configure(queues.dead_line(harness.queue), {"ttlMs": 1}).reply, InvalidRequest)
    plan = lifecycle.configure(harness.queue, {})
    assert (plan.writes, plan.reply) == ([], DEFAULT_SETTINGS)


def test_a_pause_lasts_until_it_is_taken_back(harness):
    lifecycle = harness.broker.lifecycle
    harness.submit(lifecycle.pause(harness.queue, adds=True, polls=True, paused=True))
    harness.submit(lifecycle.pause(harness.queue, adds=True, polls=False, paused=False))
    harness.commit_all()
    harness.crash()
    assert (harness.queue.settings.adds_paused, harness.queue.settings.polls_paused) == (False, True)
