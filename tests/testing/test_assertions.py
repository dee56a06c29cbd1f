"""Questions of a test about the items of its server, and their failures."""

import json

import pytest

from queueber.client import new_item
from queueber.errors import InvalidRequest
from queueber.values import ItemState


def test_items_that_were_added_are_found_whatever_became_of_them(server, mail):
    mail.add(b"a")
    mail.add(b"b", delay_ms=5_000)
    batch = mail.poll()
    mail.remove(batch.items[0].id, batch.lease)
    first, second = server.assert_added("mail", count=2)
    assert (first.contents, first.state, first.delay) == (b"a", None, 0)
    assert (second.contents, second.state, second.delay) == (b"b", ItemState.DELAYED, 5)
    assert server.assert_added(contents="b", delay=5) == [second]
    assert [item.contents for item in server.items("mail")] == [b"b"]


def test_an_item_that_comes_back_was_added_once(server, mail):
    mail.add(b"a")
    for _ in range(2):
        batch = mail.poll()
        mail.defer(batch.items[0].id, batch.lease)
    server.end_leases()
    server.assert_added("mail", count=1)


def test_contents_may_be_judged_by_a_function_or_as_json(server, mail):
    mail.add(b'{"to": "a", "n": 1}', b"no json", b"null")
    server.assert_added(contents=lambda contents: contents.startswith(b"no"), count=1)
    server.assert_added(json={"n": 1, "to": "a"}, count=1)
    server.assert_added(json=None, count=1)
    assert server.items("mail")[0].json() == {"n": 1, "to": "a"}


def test_calls_of_tasks_are_found_by_name_or_task_and_arguments(server, mail):
    class Task:
        name = "resize"

    call = json.dumps({"args": [2], "kwargs": {"wide": True}}).encode()
    mail.add_items(new_item(call, headers={"task": b"resize", "trace": b"1"}))
    mail.add(b"something else")
    (item,) = server.assert_added(task=Task(), args=(2,), kwargs={"wide": True}, headers={"trace": "1"})
    assert item.task == "resize"
    with pytest.raises(AssertionError) as failure:
        server.assert_added(task="resize", args=(3,))
    assert str(failure.value) == (
        "no item with task resize, args (3,) was added; added were:\n"
        """  mail: resize b'{"args": [2], "kwargs": {"wide": true}}' (ready)\n"""
        "  mail: b'something else' (ready)"
    )


def test_a_failure_lists_what_was_added_instead(server, mail):
    mail.add(b"x" * 1_000)
    mail.add(b"late", delay_ms=90_000)
    batch = mail.poll()
    mail.fail(batch.items[0].id, batch.lease, delay_ms=1_000, error="Traceback:\nno such address")
    with pytest.raises(AssertionError) as failure:
        server.assert_added("mail", contents=b"y", count=2)
    assert str(failure.value) == (
        "0 items with contents b'y' added to queue 'mail', not 2; added were:\n"
        f"  b'{'x' * 58}… (1,000 bytes) (delayed, attempts 1, last error 'no such address')\n"
        "  b'late' (delayed, delay 90 s)"
    )


def test_a_failure_names_other_queues_or_says_that_nothing_was_added(server, mail):
    with pytest.raises(AssertionError, match=r"^no item at all was added to queue 'mial'; nothing was added to any"):
        server.assert_added("mial")
    mail.add(b"x")
    with pytest.raises(AssertionError, match=r"'mial'; added to other queues were:\n  mail: b'x' \(ready\)$"):
        server.assert_added("mial")


def test_a_long_list_is_cut(server, mail):
    mail.add(*[b"%d" % number for number in range(25)])
    with pytest.raises(AssertionError, match=r"b'19' \(ready\)\n  and 5 more$"):
        server.assert_added(contents=b"x")


def test_nothing_was_added(server, mail):
    server.assert_nothing_added()
    mail.add(b"x")
    server.assert_nothing_added("other")
    with pytest.raises(AssertionError, match=r"1 item at all added to queue 'mail', not 0"):
        server.assert_nothing_added("mail")


def test_queues_are_empty_without_leased_and_dead_items(server, mail):
    server.assert_empty()
    mail.add(b"leased", b"dead")
    batch = mail.poll(2)
    mail.reject(batch.items[1].id, batch.lease)
    server.assert_empty("other")
    with pytest.raises(AssertionError, match=r"^2 items left:\n  mail: b'leased' \(leased\)\n  mail: b'dead' \(dead"):
        server.assert_empty()


def test_items_of_a_purged_queue_were_added_and_are_gone(server, client, mail):
    mail.add(b"x", b"y")
    batch = mail.poll()
    client.control("mail").purge()
    assert [(item.contents, item.state) for item in server.items("mail")] == [(b"x", ItemState.LEASED)]
    server.advance(1)
    mail.remove(batch.items[0].id, batch.lease)
    server.assert_added("mail", count=2)
    server.assert_empty()


def test_settings_have_names(server):
    with pytest.raises(TypeError, match="no setting 'attempts'; there are lease_ms, "):
        server.configure("mail", attempts=3)
    with pytest.raises(InvalidRequest, match=r"^max_attempts is '2' \(str\); it must be a whole number of attempts$"):
        server.configure("mail", max_attempts="2")
