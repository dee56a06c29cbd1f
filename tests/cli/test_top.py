"""The picture of `queueber top`, and the effect of its keys, without a terminal and without a server."""

import pytest

from queueber.api import DeliveryFacts
from queueber.api.control_types import (
    ItemView,
    LeaseView,
    Listed,
    QueueCounts,
    QueueSettings,
    QueueSummary,
    SettingsInForce,
)
from queueber.cli.top_keys import KeyDecoder
from queueber.cli.top_state import Change, Detail, QueueLeases, Quit, Refresh, Sample, Screen, Top, workers_of
from queueber.cli.top_text import Cell, Column, grid, rate, size
from queueber.cli.top_view import picture
from queueber.values import ItemState

NOW_MS = 1_800_000_000_000


def queue(name, *, labels=(), **counts):
    known = {"ready_max": counts.get("ready", 0), "delayed_max": counts.get("delayed", 0), **counts}
    return QueueSummary(name=name, stats=QueueCounts(**known), labels=labels)


def sample(*queues, at=100.0, more=False):
    return Sample(at=at, wall_ms=NOW_MS, queues=queues, more=more)


@pytest.fixture
def top():
    return Top(address="127.0.0.1:9090", interval=1.0)


def shown(top, width=120, height=24, now=100.0, clock=""):
    """Return the lines that the terminal shows, without blanks at their ends."""
    lines = picture(top, now, width, height, clock)
    assert len(lines) == height
    assert all(line.cell_len <= width for line in lines)
    return [line.plain.rstrip() for line in lines]


def names(top, **size):
    """Return the names in the list, in order."""
    return [line.split()[0] for line in shown(top, **size)[4:-1] if line]


def press(top, *keys):
    return [top.press(key) for key in keys][-1]


def counted(name, added, removed):
    return queue(name, added=added, removed=removed)


# Rates


def test_a_rate_is_taken_over_the_last_seconds(top):
    top.take(sample(counted("mail", 100, 90), at=10.0))
    assert top.rates.of("mail") == (None, None)
    top.take(sample(counted("mail", 130, 92), at=12.0))
    assert top.rates.of("mail") == (15.0, 1.0)
    for second in range(13, 17):
        top.take(sample(counted("mail", 130, 92), at=float(second)))
    # From 10 to 16.
    assert top.rates.of("mail") == (5.0, 2 / 6)
    top.take(sample(counted("mail", 130, 92), at=17.0))
    assert top.rates.of("mail") == (0.0, 0.0)
    # Seldom samples: from the one before.
    top.take(sample(counted("mail", 190, 92), at=47.0))
    assert top.rates.of("mail") == (2.0, 0.0)


def test_a_queue_that_was_made_anew_has_no_negative_rate(top):
    top.take(sample(counted("mail", 100, 90), at=10.0))
    top.take(sample(counted("mail", 3, 0), at=11.0))
    assert top.rates.of("mail") == (None, None)
    top.take(sample(counted("mail", 5, 0), at=12.0))
    assert top.rates.of("mail") == (2.0, 0.0)


def test_a_queue_that_is_gone_is_forgotten(top):
    top.take(sample(counted("mail", 100, 90), at=10.0))
    top.take(sample(at=11.0))
    top.take(sample(counted("mail", 200, 90), at=12.0))
    assert top.rates.of("mail") == (None, None)


# The list


MAIL = queue(
    "mail",
    items=1_260,
    ready=1_200,
    leased=10,
    delayed=12,
    delayed_max=40,
    dead=2,
    waiting_polls=3,
    bytes=5_242_880,
    oldest_due_ms=NOW_MS - 12_500,
    polls_paused=True,
    labels=(("team", "post"),),
)
IMAGES = queue("images", items=7, ready=7, oldest_due_ms=NOW_MS + 60_000)
EMPTY = queue("empty")


NOTED = "polls paused; team=post"


def test_the_list(top):
    top.take(sample(EMPTY, IMAGES, MAIL))
    assert shown(top, width=122, clock="12:00:00")[:8] == [
        "queueber 127.0.0.1:9090  3 queues  1,267 items  in -/s  out -/s" + " " * 51 + "12:00:00",
        "by ready",
        "",
        "queue              ready   leased     in/s    out/s   dead      oldest  delayed  polls      bytes  notes",
        f"mail (paused)      1,200       10        -        -      2      12.5 s    12-40      3    5.0 MiB  {NOTED}",
        "images                 7        0        -        -      0  in 1.0 min        0      0        0 B",
        "empty                  0        0        -        -      0           -        0      0        0 B",
        "",
    ]


def test_a_narrow_terminal_shows_the_most_important_columns(top):
    top.take(sample(EMPTY, IMAGES, MAIL))
    assert shown(top, width=40)[3:6] == [
        "queue            ready   leased     in/s",
        "mail (paused)    1,200       10        -",
        "images               7        0        -",
    ]
    assert shown(top, width=10, height=6)[2:4] == ["queue", "mail (paus"]
    assert shown(top, width=40, height=4)[2] == "mail (paused)    1,200       10        -"
    for width in (1, 2, 5, 80, 500):
        for height in (1, 2, 3, 4, 5, 40):
            shown(top, width=width, height=height)


def test_names_cannot_control_the_terminal_and_are_no_markup(top):
    top.take(sample(queue("\x1b[31mred"), queue("[bold]x"), queue("a\nb"), queue("日本" * 40)))
    lines = "\n".join(shown(top, width=60, height=10))
    assert "\x1b" not in lines
    assert '"\\u001b[31mred"' in lines
    assert '"a\\nb"' in lines
    assert "[bold]x" in lines


def test_the_order_follows_the_column_and_the_keys(top):
    top.take(sample(EMPTY, IMAGES, MAIL))
    assert names(top) == ["mail", "images", "empty"]
    press(top, "r")
    assert names(top) == ["empty", "images", "mail"]
    press(top, "left")
    assert (top.sort, names(top)) == ("queue", ["empty", "images", "mail"])
    press(top, "r")
    assert names(top) == ["mail", "images", "empty"]
    while top.sort != "oldest":
        press(top, "s")
    assert names(top) == ["mail", "images", "empty"]
    press(top, "right", "right", "right")
    assert top.sort == "queue"


def test_queues_that_are_equal_are_in_the_order_of_their_names(top):
    top.take(sample(queue("b"), queue("a"), queue("c")))
    assert names(top) == ["a", "b", "c"]
    press(top, "r")
    assert names(top) == ["a", "b", "c"]


def test_the_cursor_stays_on_its_queue_when_the_order_changes(top):
    top.take(sample(EMPTY, IMAGES, MAIL))
    shown(top)
    press(top, "down")
    assert top.selected == "images"
    top.take(sample(EMPTY, queue("images", ready=9_999), MAIL))
    assert names(top) == ["images", "mail", "empty"]
    assert top.selected == "images"
    top.take(sample(EMPTY, MAIL))
    shown(top)
    assert top.selected == "mail"


def test_the_cursor_moves_within_the_list_and_the_list_under_it(top):
    top.take(sample(*(queue(f"q{number:03}") for number in range(100))))
    shown(top, height=15)
    assert top.page == 10
    press(top, "up")
    assert top.selected == "q000"
    press(top, "page-down", "j")
    assert top.selected == "q011"
    assert "q011" in names(top, height=15)
    press(top, "end", "down")
    assert top.selected == "q099"
    assert names(top, height=15)[-1] == "q099"
    press(top, "k", "page-up", "x")
    assert top.selected == "q088"
    press(top, "g")
    assert names(top, height=15)[0] == top.selected == "q000"
    press(top, "G", "home")
    assert top.selected == "q000"


def test_keys_do_nothing_in_an_empty_list(top):
    for key in ("down", "enter", "p", "a", "page-up"):
        assert press(top, key) is None
    assert "no queues" in shown(top)
    assert (top.asking, top.screen) == (None, Screen.QUEUES)


def test_a_filter_is_typed(top):
    top.take(sample(EMPTY, IMAGES, MAIL))
    press(top, "/", "M", "A", "x")
    assert shown(top)[1] == "only names with: MAx_"
    assert "no queue has such a name" in shown(top)
    press(top, "backspace")
    assert names(top) == ["mail", "images"]
    # A letter that is typed is no command, and neither is one that the keyboard has no letter for.
    press(top, "clear", "q", "up", "clear", "i", "enter")
    assert names(top) == ["mail", "images"]
    assert shown(top)[1] == "by ready; only names with i"
    press(top, "escape")
    assert len(names(top)) == 3
    press(top, "/", "m", "escape")
    assert len(names(top)) == 3


def test_more_queues_than_were_asked_for(top):
    top.take(sample(MAIL, more=True))
    assert "1 queue or more" in shown(top)[0]


# A queue


@pytest.fixture
def opened(top):
    top.take(sample(EMPTY, MAIL))
    shown(top)
    assert press(top, "enter") == Refresh()
    assert top.opened == "mail"
    return top


def item(number, **more):
    known = {"contents": b"hello", "contents_bytes": 5, "state": ItemState.READY, "due_ms": NOW_MS - 3_000, **more}
    return ItemView(id=bytes([number]) * 16, added_at_ms=NOW_MS, **known)


def detail(*, dead=False, items=(), leases=(), **settings):
    known = QueueSettings(**settings)
    defaults = [each for each in ("max_attempts", "ttl_ms", "labels") if each not in settings]
    names = {*QueueSettings.__slots__, *defaults} - {*settings, "__weakref__"}
    return Detail(
        name="mail",
        dead=dead,
        settings=SettingsInForce(settings=known, defaults=sorted(names)),
        items=Listed(list(items), more=False),
        leases=Listed(list(leases), more=False),
    )


def test_a_queue_is_opened(opened):
    assert shown(opened)[3] == "mail"
    assert "settings" not in "\n".join(shown(opened))
    lease = LeaseView(handle=b"h" * 16, items=4, since_ms=NOW_MS - 90_000, peer="10.0.0.7:4711", session=True)
    timed = LeaseView(handle=b"i" * 16, items=1, deadline_ms=NOW_MS + 30_000)
    items = [item(1), item(2, attempts=3, facts=DeliveryFacts(last_error="Traceback\nOSError: no disk\n"))]
    opened.take(sample(EMPTY, MAIL), detail(items=items, leases=[lease, timed], max_attempts=5))
    lines = shown(opened, height=30)
    text = "\n".join(lines)
    assert "max-attempts 5" in text
    assert "delayed 12-40" in text
    assert any(line.startswith("hello") and "3.0 s ago" in line for line in lines)
    assert any(line.startswith("OSError: no disk | hello") for line in lines)
    assert any(line.startswith("10.0.0.7:4711") and "1.5 min" in line and "with its session" in line for line in lines)
    assert any(line.startswith("not known any more") and "before the start" in line for line in lines)


def test_an_empty_queue_says_so(opened):
    opened.take(sample(EMPTY, MAIL), detail())
    text = "\n".join(shown(opened))
    assert all(each in text for each in ("all defaults", "no waiting items", "no leases"))


def test_dead_items_take_the_place_of_the_next_ones(opened):
    opened.take(sample(EMPTY, MAIL), detail(items=[item(1)]))
    assert press(opened, "d") == Refresh()
    assert "hello" not in "\n".join(shown(opened))
    opened.take(sample(EMPTY, MAIL), detail(dead=True, items=[item(1, state=ItemState.DEAD)]))
    assert "dead items" in "\n".join(shown(opened))


def test_a_queue_that_was_deleted_meanwhile(opened):
    opened.take(sample(EMPTY))
    assert "There is no such queue any more." in shown(opened)
    assert press(opened, "p") is None
    assert opened.asking is None
    assert press(opened, "escape") == Refresh()
    assert names(opened) == ["empty"]


# Workers


def test_the_workers(top):
    held = [
        QueueLeases(
            name="mail",
            leases=Listed(
                [
                    LeaseView(handle=b"a", items=4, since_ms=NOW_MS - 1_000, peer="10.0.0.7:1", session=True),
                    LeaseView(handle=b"b", items=2, since_ms=NOW_MS - 9_000, peer="10.0.0.8:1"),
                ],
                more=False,
            ),
        ),
        QueueLeases(
            name="images",
            leases=Listed([LeaseView(handle=b"c", items=1, since_ms=NOW_MS - 60_000, peer="10.0.0.7:1")], more=False),
        ),
    ]
    first, second = workers_of(held)
    assert (first.peer, first.items, first.leases, first.sessions) == ("10.0.0.7:1", 5, 2, 1)
    assert (first.queues, first.since_ms) == (("images", "mail"), NOW_MS - 60_000)
    assert second.peer == "10.0.0.8:1"
    top.take(sample(MAIL))
    assert press(top, "w") == Refresh()
    assert "no worker holds an item" in shown(top)
    top.take(sample(MAIL), leases=held)
    assert [line.split() for line in shown(top)[3:6]] == [
        ["worker", "items", "leases", "longest", "kept", "by", "queues"],
        ["10.0.0.7:1", "5", "2", "1.0", "min", "both", "images,", "mail"],
        ["10.0.0.8:1", "2", "1", "9.0", "s", "time", "mail"],
    ]
    assert press(top, "p") is None
    assert top.asking is None


# Changes, errors, help


@pytest.mark.parametrize(("key", "adds", "pause"), [("p", False, False), ("a", True, True)])
def test_a_pause_and_a_resumption_need_a_yes(top, key, adds, pause):
    top.take(sample(EMPTY, MAIL))
    shown(top)
    assert press(top, key) is None
    assert "mail" in shown(top)[1]
    assert shown(top)[1].endswith("[y/N]")
    assert press(top, "y") == Change(queue="mail", adds=adds, pause=pause)
    assert top.asking is None


@pytest.mark.parametrize("key", ["n", "enter", "escape", "q"])
def test_any_other_key_is_a_no(top, key):
    top.take(sample(EMPTY, MAIL))
    shown(top)
    assert press(top, "p", key) is None
    assert (top.asking, shown(top)[1]) == (None, "by ready")


def test_a_question_is_about_the_queue_that_was_selected_then(top):
    top.take(sample(EMPTY, MAIL))
    shown(top)
    press(top, "p")
    top.take(sample(EMPTY))
    shown(top)
    assert press(top, "Y").queue == "mail"


def test_an_error_is_shown_with_the_age_of_the_numbers(top):
    top.take(sample(MAIL, at=100.0))
    top.error = "cannot connect\x1b"
    assert shown(top, now=112.0)[1] == 'no answer for 12.0 s: "cannot connect\\u001b"'
    assert names(top) == ["mail"]
    top.take(sample(MAIL, at=113.0))
    assert shown(top)[1] == "by ready"


def test_a_message_lasts_until_the_next_key(top):
    top.take(sample(MAIL))
    top.message = "paused mail"
    assert shown(top)[1] == "paused mail"
    press(top, "down")
    assert shown(top)[1] == "by ready"


def test_help_and_the_end(top):
    press(top, "h")
    assert "12-40   a number that the server does not know exactly: its bounds" in shown(top, height=30)
    assert press(top, "x") is None
    assert not top.help
    assert press(top, "?", "q") == Quit()
    assert press(top, "q") == Quit()
    assert press(top, " ") == Refresh()


# Keys


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"qj", ["q", "j"]),
        (b"\x1b[A\x1b[B\x1bOC\x1b[5~\x1b[H", ["up", "down", "right", "page-up", "home"]),
        (b"\r\n\x7f\x15", ["enter", "enter", "backspace", "clear"]),
        ("é日".encode(), ["é", "日"]),
        (b"\x01\x00\xff", []),
        (b"\x1b[200~x\x1b[1;5A", ["x"]),
        (b"\x1bxq", ["q"]),
    ],
    ids=repr,
)
def test_keys_are_decoded_however_they_are_cut(data, keys):
    whole = KeyDecoder()
    assert whole.feed(data) == keys
    parts = KeyDecoder()
    assert [key for byte in data for key in parts.feed(bytes([byte]))] == keys
    assert not parts.unfinished


def test_an_escape_alone_is_a_key_once_its_time_is_over():
    keys = KeyDecoder()
    assert keys.feed(b"\x1b") == []
    assert keys.unfinished
    assert keys.flush() == ["escape"]
    assert keys.feed(b"\x1b[") == []
    assert keys.flush() == []
    assert keys.feed(b"a") == ["a"]


# Text


def test_a_table_is_as_wide_as_the_terminal():
    rows = [[Cell("日本語の名前です"), Cell("1")], [Cell("a"), Cell("2")]]
    lines = grid([Column("name", left=True), Column("n", 3)], rows, 20)
    assert [line.cell_len for line in lines] == [20, 20, 20]
    assert lines[2].plain == "a" + " " * 18 + "2"


def test_short_numbers():
    assert [rate(None), rate(0), rate(9.96), rate(1_234.5)] == ["-", "0.0", "10.0", "1,234"]
    assert [size(0), size(1_023), size(1_536), size(5 << 30)] == ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
