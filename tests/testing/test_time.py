"""The time of a test server."""

import socket
from datetime import UTC, datetime, timedelta

import pytest
from waiting import in_thread, wait_for_poll

from queueber.client import new_item
from queueber.testing import TestServer
from queueber.testing.life import START
from queueber.values import DeathReason, ItemState


def contents(batch):
    return [item.contents for item in batch.items]


def test_time_begins_at_a_fixed_moment_and_moves_only_by_advance(server, mail):
    assert server.now == START
    mail.add(b"x")
    assert server.now == START
    server.advance(90.5)
    assert server.now == START + timedelta(seconds=90.5)
    assert [item.added_at for item in server.items("mail")] == [START]


def test_the_start_can_be_chosen_and_needs_a_time_zone():
    start = datetime(2030, 5, 1, 12, tzinfo=UTC)
    with TestServer(start=start) as server:
        assert server.now == start
    with pytest.raises(ValueError, match="no time zone"):
        TestServer(start=datetime(2030, 5, 1))  # noqa: DTZ001
    with pytest.raises(TypeError, match=r"^start is '2030'; it must be a datetime"):
        TestServer(start="2030")


@pytest.mark.parametrize("seconds", [0.001, 0.3, 1, 59.999, 86_400 * 365])
def test_a_delay_is_over_when_time_has_moved_by_it_and_not_a_millisecond_earlier(server, mail, seconds):
    mail.add(b"later", delay_ms=round(seconds * 1_000))
    server.advance(seconds - 0.001)
    assert not mail.poll(wait_ms=0).items
    server.advance(0.001)
    assert contents(mail.poll(wait_ms=0)) == [b"later"]


def test_no_duration_is_off_by_the_rounding_of_a_fraction(server, mail):
    for number in range(100):
        mail.add(b"%d" % number, delay_ms=7 * number + 1)
        server.advance((7 * number + 1) / 1_000)
        (item,) = mail.poll(wait_ms=0)
        assert item.contents == b"%d" % number
        item.remove()


def test_many_small_moves_add_up(server, mail):
    mail.add(b"later", delay_ms=10_000)
    for _ in range(99):
        server.advance(0.1)
    assert not mail.poll(wait_ms=0).items
    server.advance(0.1)
    assert contents(mail.poll(wait_ms=0)) == [b"later"]


def test_a_poll_that_waits_gets_an_item_whose_delay_ends(server, client_of, mail):
    mail.add(b"later", delay_ms=60_000)
    with in_thread(lambda: client_of(server).queue("mail").poll(wait_ms=3_600_000)) as polling:
        wait_for_poll(server)
        server.advance(60)
    assert contents(polling.result()) == [b"later"]


def test_the_wait_of_a_poll_ends(server, client_of):
    with in_thread(lambda: client_of(server).queue("mail").poll(wait_ms=5_000)) as polling:
        wait_for_poll(server)
        server.advance(5)
    assert not polling.result().items


def test_the_wait_of_a_poll_ends_by_real_time_too(server, client, mail):
    """A program that polls until nothing is left would wait for ever."""
    assert not mail.poll(wait_ms=10).items
    assert client.poll_any(["mail", "other"], wait_ms=10)[1].items == ()
    mail.add(b"x")
    assert mail.poll(wait_ms=10).items
    assert server.now == START


def test_a_lease_ends_and_its_items_come_back(server, mail):
    mail.add(b"x")
    batch = mail.poll(lease_ms=30_000)
    (item,) = server.items("mail")
    assert (item.state, item.lease, item.attempts) == (ItemState.LEASED, batch.lease, 0)
    server.advance(29.999)
    assert mail.extend(batch.lease, 30_000)
    server.advance(29.999)
    assert server.items("mail")[0].state is ItemState.LEASED
    server.advance(0.001)
    (item,) = server.items("mail")
    assert (item.state, item.lease, item.attempts) == (ItemState.READY, b"", 1)
    assert not mail.remove(batch.items[0].id, batch.lease)


def test_what_is_due_on_the_way_happens_at_its_moment(server, mail):
    """The item dies when its lease ends, however far time moves at once."""
    server.configure("mail", max_attempts=1)
    mail.add(b"x")
    mail.poll(lease_ms=10_000)
    server.advance(10_000)
    (dead,) = server.dead("mail")
    assert timedelta(seconds=10) <= dead.due - START <= timedelta(seconds=10.002)


def test_what_comes_back_at_once_is_there_at_once(server, mail):
    """The server makes it due a millisecond later than before, and no time passes here."""
    mail.add(b"x")
    for settle in ("fail", "defer", "end", "fail"):
        (item,) = mail.poll(wait_ms=0)
        if settle == "fail":
            item.fail(delay_ms=0)
        elif settle == "defer":
            item.defer()
        else:
            server.end_lease(item)
    (item,) = mail.poll(wait_ms=0)
    item.reject()
    (dead,) = mail.dead_letters().poll(wait_ms=0)
    dead.defer()
    assert mail.dead_letters().poll(wait_ms=0).items
    assert server.now == START


def test_a_failed_item_comes_back_after_its_backoff_and_dies_at_its_last_attempt(server, mail):
    server.configure("mail", max_attempts=2, backoff_base_ms=60_000)
    mail.add(b"x")
    batch = mail.poll()
    mail.fail(batch.items[0].id, batch.lease, error="first")
    (item,) = server.items("mail")
    assert (item.state, item.failures, item.last_error) == (ItemState.DELAYED, 1, "first")
    server.advance(60)
    batch = mail.poll(wait_ms=0)
    mail.fail(batch.items[0].id, batch.lease, error="last")
    assert server.items("mail") == []
    (dead,) = server.dead("mail")
    assert (dead.state, dead.death.reason, dead.last_error) == (ItemState.DEAD, DeathReason.ATTEMPTS, "last")


def test_time_moves_to_the_next_delayed_item(server, client, mail):
    server.configure("mail", max_attempts=3)
    mail.add(b"x")
    client.queue("later").add(b"y", delay_ms=86_400_000)
    for failures in range(3):
        (item,) = mail.poll(wait_ms=0)
        assert item.failures == failures
        item.fail("no")
        moved = server.advance_until_due("mail")
        assert (moved > 0) == (failures < 2)
    assert len(server.dead("mail")) == 1
    assert server.advance_until_due() == pytest.approx(86_400, abs=10)
    assert contents(client.queue("later").poll(wait_ms=0)) == [b"y"]
    assert server.advance_until_due() == 0


def test_a_deduplication_window_ends(server, mail):
    server.configure("mail", dedup_window_ms=60_000)
    assert mail.add_items(new_item(b"x", dedup_key=b"k")).duplicates == ()
    server.advance(59)
    assert mail.add_items(new_item(b"x", dedup_key=b"k")).duplicates == (0,)
    server.advance(1)
    assert mail.add_items(new_item(b"x", dedup_key=b"k")).duplicates == ()


def test_queues_and_dead_items_end_with_their_times_to_live(server, mail):
    server.configure("mail", dead_ttl_ms=3_600_000, idle_ttl_ms=86_400_000)
    mail.add(b"x")
    batch = mail.poll()
    mail.reject(batch.items[0].id, batch.lease)
    assert len(server.dead("mail")) == 1
    server.advance(7_200)
    assert server.dead("mail") == []
    assert server.queues() == ["mail"]
    server.advance(3 * 86_400)
    assert server.queues() == []


SESSION = b"s" * 16


def test_a_session_lasts_while_its_client_is_connected(server, client):
    client.attach(SESSION, grace_ms=30_000)
    mail = client.queue("mail")
    mail.add(b"x")
    assert mail.poll(session=SESSION).session
    server.advance(86_400)
    assert server.items("mail")[0].state is ItemState.LEASED
    assert client.ping() == []


def test_a_session_ends_after_the_silence_of_its_client_and_its_grace(server, client, mail):
    client.attach(SESSION, grace_ms=30_000)
    mail.add(b"x")
    client.queue("mail").poll(session=SESSION)
    silence = server.silence_clients()
    assert silence.happened == 1
    server.advance(30 + 29)
    assert server.items("mail")[0].state is ItemState.LEASED
    server.advance(3)
    assert server.items("mail")[0].state is ItemState.READY


def test_a_session_ends_after_the_loss_of_its_connection_and_its_grace(server, client, mail):
    client.attach(SESSION, grace_ms=30_000)
    mail.add(b"x")
    client.queue("mail").poll(session=SESSION)
    assert server.drop_connections() == 1
    server.advance(29.998)
    assert server.items("mail")[0].state is ItemState.LEASED
    server.advance(0.002)
    assert server.items("mail")[0].state is ItemState.READY


def test_time_moves_only_forward_and_by_a_number(server):
    for seconds in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="must be 0 or more"):
            server.advance(seconds)
    with pytest.raises(TypeError, match=r"^seconds is '1'; it must be a number$"):
        server.advance("1")


def test_time_ends_with_the_year_9999(server, mail):
    for seconds in (1e12, 1e300):
        with pytest.raises(ValueError, match="the server's time would be after the year 9999"):
            server.advance(seconds)
    assert server.now == START
    mail.add(b"x", timeout_ms=10_000)


def test_connections_without_a_message_survive_a_move_of_time(server):
    """A program's own connections are not those of hostile peers, whatever the time."""
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as stalled:
        for each in (silent, stalled):
            each.connect(server.path)
            each.setblocking(False)
        stalled.send(bytes(6))
        server.advance(86_400)
        for each in (silent, stalled):
            with pytest.raises(BlockingIOError):
                each.recv(1)
