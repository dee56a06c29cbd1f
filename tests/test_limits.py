"""The limits on peers: their options, their table, and that they fit together."""

import re
from pathlib import Path

import pytest

from queueber.limits import DEFAULTS, PEER_LIMITS
from queueber.server.config.twisted_options import Options
from queueber.server.core.reserve import RESERVE_BYTES
from queueber.units import Unit, parse, quantity
from tests.support.fixed_limits import FIXED_LIMITS

PROTOCOL = (Path(__file__).parents[1] / "docs" / "protocol.md").read_text()
NAMED = pytest.mark.parametrize("limit", PEER_LIMITS, ids=lambda limit: limit.name)


def option_of(limit):
    return f"limit-{limit.name.replace('_', '-')}"


def settings_of(*arguments):
    options = Options(environment={})
    options.parseOptions(arguments)
    return options.settings


def test_the_table_in_the_docs_is_the_code_s():
    section = PROTOCOL[PROTOCOL.index("## Limits") : PROTOCOL.index("## Compatibility")]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \|$", section, re.MULTILINE)
    assert rows == [
        (limit.name, limit.figure, limit.description, limit.consequence) for limit in (*PEER_LIMITS, *FIXED_LIMITS)
    ]


def test_what_is_no_option_of_the_limits_says_where_it_is_to_be_had():
    assert quantity(RESERVE_BYTES, Unit.BYTES) in FIXED_LIMITS[0].figure
    for limit in FIXED_LIMITS:
        assert "--free-space-reserve" in limit.why or limit.why.startswith("no option: ")
        assert limit.name not in {each.name for each in PEER_LIMITS}


def test_zero_means_what_the_limit_says_it_means():
    """A delay of at most 0 is no delay, and not any delay."""
    meanings = {limit.name: limit.zero for limit in PEER_LIMITS if limit.low == 0}
    assert meanings == {"delay_ms": "none", "idle_ms": "unlimited", "connections_per_peer": "unlimited"}
    assert all(limit.zero is None for limit in PEER_LIMITS if limit.low)


def test_the_defaults_are_the_published_ones():
    """Other people's clients are built for these."""
    figures = {limit.name: limit.figure for limit in PEER_LIMITS}
    assert figures == {
        "frame_bytes": "16 MiB",
        "segments": "512",
        "traversal_factor": "2",
        "items_per_add": "1,000",
        "contents_bytes": "8 MiB",
        "add_bytes": "15 MiB",
        "poll_items": "1,000",
        "poll_bytes": "15 MiB",
        "lease_ms": "7 d",
        "delay_ms": "10 y",
        "wait_ms": "10 y",
        "outstanding_calls": "1,024",
        "open_answers": "100,000",
        "exports": "10,000",
        "request_bytes": "16 MiB",
        "unsent_bytes": "8 MiB",
        "first_message_ms": "10 s",
        "stalled_message_ms": "30 s",
        "stalled_replies_ms": "30 s",
        "idle_ms": "unlimited",
        "session_silence_ms": "30 s",
        "connections": "10,000",
        "connections_per_peer": "unlimited",
        "handshakes": "1,000",
        "pending_bytes": "256 MiB",
        "buffered_bytes": "256 MiB",
        "waiting_polls": "50,000",
        "sessions": "50,000",
        "leased_items": "1,000,000",
        "queues": "1,000,000",
    }


def test_without_options_the_defaults_hold():
    assert settings_of().limits == DEFAULTS


@NAMED
def test_each_is_an_option_that_takes_what_is_in_its_range(limit, capsys):
    other = max(limit.low, limit.default // 2) if limit.default else limit.high
    # Halving one alone may contradict another; those halve with it.
    more = {"frame_bytes": ["--limit-add-bytes=1MiB", "--limit-poll-bytes=1MiB", "--limit-contents-bytes=1MiB"]}
    more["add_bytes"] = more["poll_bytes"] = ["--limit-contents-bytes=1MiB"]
    limits = settings_of(f"--{option_of(limit)}={other}", *more.get(limit.name, ())).limits
    assert getattr(limits, limit.name) == other

    for bad in (limit.low - 1, limit.high + 1, "many", ""):
        with pytest.raises(SystemExit) as ended:
            settings_of(f"--{option_of(limit)}={bad}")
        assert ended.value.code == 64
        said = capsys.readouterr().err
        assert said.startswith(f"queueber: --{option_of(limit)}")
        assert said.count("\n") == 1
        assert repr(str(bad)) in said


@NAMED
def test_the_help_contains_default_and_range(limit):
    said = " ".join(Options().getUsage(width=10_000).split())
    row = said[said.index(f"--{option_of(limit)}=") :]
    assert f"[default: {limit.figure if limit.default else 'off'}]" in row
    assert f"{quantity(limit.low, limit.unit)} to {quantity(limit.high, limit.unit)}" in row


def test_contradictions_are_reported_together(capsys):
    with pytest.raises(SystemExit) as ended:
        settings_of("--limit-frame-bytes=1MiB", "--limit-contents-bytes=16MiB")
    assert ended.value.code == 64
    said = capsys.readouterr().err
    contents, frame = "--limit-contents-bytes (16 MiB) is larger than", "--limit-frame-bytes (1 MiB) is smaller than"
    assert said.splitlines() == [
        f"queueber: {contents} --limit-add-bytes (15 MiB, the default): no add could hold it",
        f"queueber: {contents} --limit-poll-bytes (15 MiB, the default): no poll could return it",
        (
            f"queueber: {frame} the largest add by --limit-add-bytes (15 MiB, the default) and --limit-items-per-add"
            " (1,000, the default), 15,796,736 bytes"
        ),
        (
            f"queueber: {frame} the largest poll's reply by --limit-poll-bytes (15 MiB, the default) and"
            " --limit-poll-items (1,000, the default), 15,796,736 bytes"
        ),
    ]


def test_the_defaults_are_in_range_and_do_not_contradict_each_other():
    assert all(limit.low <= limit.default <= limit.high for limit in PEER_LIMITS)
    assert list(DEFAULTS.conflicts()) == []


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, Unit.BYTES, "0 B"),
        (0, Unit.COUNT, "0"),
        (1536, Unit.BYTES, "1,536 B"),
        (16 << 20, Unit.BYTES, "16 MiB"),
        (90_000, Unit.MS, "90 s"),
        (7 * 86_400_000, Unit.MS, "7 d"),
        (1_000, Unit.COUNT, "1,000"),
    ],
)
def test_a_quantity_is_read_as_it_is_written(value, unit, text):
    assert quantity(value, unit) == text.replace("1,536 B", "1,536 B")
    assert parse(text, unit) == value


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("0.5s", Unit.MS, 500),
        ("1.001s", Unit.MS, 1_001),
        ("1.5 MiB", Unit.BYTES, 3 << 19),
        ("1_000", Unit.COUNT, 1_000),
        (" 7 ", Unit.MS, 7),
    ],
)
def test_fractions_and_underscores_are_read(text, unit, value):
    assert parse(text, unit) == value


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("", Unit.MS),
        ("1x", Unit.MS),
        ("-1", Unit.BYTES),
        ("1 s", Unit.BYTES),
        ("5 s", Unit.COUNT),
        ("0.0001s", Unit.MS),
        (f"{'9' * 400}.5", Unit.MS),
    ],
)
def test_what_is_no_quantity_is_refused(text, unit):
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        parse(text, unit)
