"""The metrics of a scrape; the dashboard and the alerts use no others."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from queueber.broker.deaths import DropReason
from queueber.errors import Kind
from queueber.limits import PEER_LIMITS
from queueber.server.monitoring import queue_stats
from queueber.server.monitoring.diagnostics import Disk
from queueber.server.monitoring.metrics import ScrapeData, exposition
from queueber.store.datadir.database import PROPERTY_NAMES
from queueber.units import SpanMs
from queueber.values import DeathReason, NewItem

DEPLOY = Path(__file__).parents[2] / "deploy"

# Prometheus makes these itself.
ITS_OWN = {"up"}


CERTIFICATE_ENDS = 1_800_000_000


@pytest.fixture
def shows_a_certificate(diagnostics):
    """The server listens with TLS."""
    diagnostics.certificates = SimpleNamespace(expires=datetime.fromtimestamp(CERTIFICATE_ENDS, UTC))


@pytest.fixture
def scrape(diagnostics):
    """Return the samples of a scrape: values by name and labels."""

    def scrape(disk=True):
        stats = []
        diagnostics.reactor.advance(queue_stats.FRESH_SECONDS)
        diagnostics.queue_stats().addCallback(stats.append)
        figures = Disk({name: number for number, name in enumerate(PROPERTY_NAMES, 1)}, 12_345, 678) if disk else None
        content, content_type = exposition(diagnostics, ScrapeData(stats[0], figures, 1, 2), "text/plain")
        assert content_type.startswith("text/plain")
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(content.decode())
            for sample in family.samples
        }

    return scrape


def test_items_by_queue_and_state(scrape, server):
    peer = server.connect()
    peer.add(b"a", b"b", b"c")
    peer.poll(lease=60_000)
    server.settle()
    server.broker.add(server.broker.queue("later"), [[NewItem(b"", SpanMs(60_000))]], server.clock.now())
    server.reactor.advance(7)

    found = scrape()

    items = {key[1:]: value for key, value in found.items() if key[0] == "queueber_items" and value}
    assert items == {
        (("queue", "default"), ("state", "ready")): 2,
        (("queue", "default"), ("state", "leased")): 1,
        (("queue", "later"), ("state", "delayed")): 1,
    }
    assert found["queueber_oldest_ready_seconds", ("queue", "default")] == 8
    assert found["queueber_oldest_ready_seconds", ("queue", "later")] == 0
    assert found[("queueber_items_added_total",)] == 4
    assert found[("queueber_leases",)] == found[("queueber_leased_items",)] == 1


def test_deaths_by_queue_and_reason(scrape, server):
    server.broker.deaths.counts["mail", DeathReason.LOST] = 3
    server.broker.deaths.counts["", DeathReason.EXPIRED] = 1
    server.broker.deaths.drops["mail", DropReason.DEAD_TTL] = 2
    found = scrape()
    assert found["queueber_deaths_total", ("queue", "mail"), ("reason", "lost")] == 3
    assert found["queueber_deaths_total", ("queue", queue_stats.OTHER_QUEUES), ("reason", "expired")] == 1
    assert found["queueber_drops_total", ("queue", "mail"), ("reason", "dead_ttl")] == 2


def test_a_queue_whose_first_item_was_not_read_has_no_age_and_gets_one(scrape, server):
    server.connect().add(b"a")
    server.settle()
    window = server.broker.queue("default").window
    window.trim(0, server.broker.queue("default").floor)
    age = "queueber_oldest_ready_seconds", ("queue", "default")
    assert scrape()[age] == 1
    window.extend([], window.covered_to)

    found = scrape()

    assert found["queueber_items", ("queue", "default"), ("state", "unread")] == 1
    assert age not in found
    server.first_due_reader.run()
    server.settle()
    assert scrape()[age] == 3


def test_the_age_of_the_others_is_that_of_the_known_ones_and_it_is_said_how_many_are_not(scrape, server, monkeypatch):
    monkeypatch.setattr(queue_stats, "TOP", 0)
    for name in ("old", "young"):
        server.broker.add(server.broker.queue(name), [[NewItem(b"", SpanMs(0))]], server.clock.now())
        server.reactor.advance(5)
    server.settle()
    old = server.broker.queue("old")
    old.window.trim(0, old.floor)
    old.window.extend([], old.window.covered_to)
    age = "queueber_oldest_ready_seconds", ("queue", queue_stats.OTHER_QUEUES)
    found = scrape()
    assert (found[age], found[("queueber_unknown_age_queues",)]) == (6, 1)

    server.first_due_reader.run()
    server.settle()

    found = scrape()
    assert (found[age], found[("queueber_unknown_age_queues",)]) == (12, 0)


def test_names_are_escaped(scrape, server):
    name = 'we"ird\\\n\x1b[2J'
    server.broker.add(server.broker.queue(name), [[NewItem(b"", SpanMs(0))]], server.clock.now())
    assert scrape()["queueber_items", ("queue", name), ("state", "ready")] == 1


def test_the_number_of_named_queues_is_limited(scrape, server):
    for number in range(queue_stats.TOP + 20):
        server.broker.add(server.broker.queue(f"q{number}"), [[NewItem(b"", SpanMs(0))]], server.clock.now())
    found = scrape()
    assert len({key[1] for key in found if key[0] == "queueber_items"}) == queue_stats.TOP + 1
    assert found["queueber_items", ("queue", queue_stats.OTHER_QUEUES), ("state", "ready")] == 20
    assert found["queueber_oldest_ready_seconds", ("queue", queue_stats.OTHER_QUEUES)] == 1


def test_calls_errors_and_times_by_method(scrape, server):
    peer = server.connect()
    peer.add(b"a")
    peer.poll(lease=0)
    server.settle()
    found = scrape()
    assert found["queueber_calls_total", ("method", "add")] == 1
    assert found["queueber_call_errors_total", ("kind", Kind.FAILED.name.lower()), ("method", "poll")] == 1
    assert found["queueber_call_errors_total", ("kind", "overloaded"), ("method", "extend")] == 0
    assert found["queueber_call_seconds_count", ("method", "add")] == 1
    assert found["queueber_call_seconds_bucket", ("le", "+Inf"), ("method", "add")] == 1


def test_commits_and_the_engine(scrape, server):
    server.connect().add(b"four")
    server.turn()
    server.reactor.advance(3)
    assert scrape()[("queueber_commit_age_seconds",)] == 4
    server.settle()
    found = scrape()
    assert found[("queueber_commit_bytes_sum",)] == 4
    assert found[("queueber_commit_seconds_sum",)] == 4
    assert found["queueber_engine_files", ("level", "3")] == PROPERTY_NAMES.index("level_3_files") + 1
    assert found[("queueber_disk_free_bytes",)] == 12_345
    assert found[("queueber_disk_free_inodes",)] == 678
    assert found[("queueber_pool_busy_threads",)] == 1
    assert found[("queueber_pool_waiting",)] == 2


def test_without_an_answer_of_the_engine_all_other_metrics_are_there(scrape):
    found = scrape(disk=False)
    assert not [key for key in found if key[0].startswith(("queueber_engine", "queueber_disk"))]
    assert ("queueber_queues",) in found


def test_all_limits_and_their_hits(scrape, server):
    server.broker.limit_hits["free_space_reserve"] += 2
    found = scrape()
    for limit in PEER_LIMITS:
        assert found["queueber_limit", ("limit", limit.name)] == limit.default
        assert found["queueber_limit_hits_total", ("limit", limit.name)] == 0
    assert found["queueber_limit_hits_total", ("limit", "free_space_reserve")] == 2


def test_readiness_by_check(scrape, server):
    assert scrape()["queueber_ready", ("check", "serving")] == 1
    server.handlers.drain()
    assert scrape()["queueber_ready", ("check", "serving")] == 0


def test_without_a_certificate_there_is_no_expiration_time(scrape):
    assert ("queueber_certificate_expiration_timestamp_seconds",) not in scrape()


@pytest.mark.usefixtures("shows_a_certificate")
def test_the_expiration_time_of_the_certificate(scrape):
    assert scrape()[("queueber_certificate_expiration_timestamp_seconds",)] == CERTIFICATE_ENDS


def named_in(expression):
    """Return the metrics in a PromQL expression."""
    return set(re.findall(r"\b(?:queueber|process)_\w+|\bup\b", re.sub(r'"[^"]*"', "", expression)))


def board_expressions():
    board = json.loads((DEPLOY / "grafana" / "queueber.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return asked + [each["query"]["query"] for each in board["templating"]["list"] if each["type"] == "query"]


def alerts():
    """Return the rules of the alerts."""
    (group,) = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    return group["rules"]


def alert_expressions():
    return [rule["expr"] for rule in alerts()]


@pytest.mark.usefixtures("shows_a_certificate")
@pytest.mark.parametrize("expressions", [board_expressions, alert_expressions])
def test_every_metric_of_the_dashboard_and_the_alerts_exists(expressions, scrape, server):
    server.connect().add(b"a")
    server.settle()
    known = {key[0] for key in scrape()} | ITS_OWN
    asked = expressions()
    assert len(asked) >= 10
    for expression in asked:
        assert named_in(expression)
        assert named_in(expression) <= known


def test_every_alert_is_documented():
    page = (DEPLOY.parent / "docs" / "seeing-inside.md").read_text()
    assert [rule["alert"] for rule in alerts() if f"| `{rule['alert']}` |" not in page] == []


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_has_all_fields(rule):
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"] in ({"severity": "page"}, {"severity": "warn"})
    assert rule["annotations"].keys() == {"summary"}
    assert re.fullmatch(r"[1-9][0-9]*[smh]", rule.get("for", "1m"))
    for opening, closing in ("()", "{}", "[]"):
        assert rule["expr"].count(opening) == rule["expr"].count(closing)


def test_alerts_have_unique_names():
    assert len({rule["alert"] for rule in alerts()}) == len(alerts())


def test_the_labels_of_the_dashboard_and_the_alerts_exist(scrape, server):
    """The labels `le`, `job` and `instance` come from Prometheus."""
    peer = server.connect()
    peer.add(b"a")
    server.settle()
    labels = {label for key in scrape() for label, _ in key[1:]} | {"job", "instance"}
    for expression in [*board_expressions(), *alert_expressions()]:
        used = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expression)
        used += [name for group in re.findall(r"\b(?:by|on) \(([\w, ]+)\)", expression) for name in group.split(", ")]
        assert set(used) <= labels
