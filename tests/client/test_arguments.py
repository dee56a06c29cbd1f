"""Arguments: all bytes of any buffer are sent, and an invalid one is an error that names it before anything is sent."""

import inspect
import re
from array import array
from ctypes import c_uint64
from mmap import mmap
from pathlib import Path

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

import queueber.client
from queueber import api
from queueber.capnp import DATA_BYTES_MAX
from queueber.client import Action, AddTo, Client, DeathReason, Queue, Settlement, Tls, connect, new_item
from queueber.client.admin import Admin
from queueber.client.control import QueueControl
from queueber.errors import InvalidRequest
from queueber.limits import DEFAULTS

BYTES = bytes(range(16))


def mapped():
    made = mmap(-1, len(BYTES))
    made[:] = BYTES
    return made


BUFFERS = {
    "bytes": BYTES,
    "a subclass": type("Contents", (bytes,), {"__bytes__": lambda _: b"other", "__len__": lambda _: 3})(BYTES),
    "bytearray": bytearray(BYTES),
    "memoryview": memoryview(BYTES),
    "every other byte": memoryview(bytes(each // 2 for each in range(32)))[::2],
    "backwards": memoryview(BYTES[::-1])[::-1],
    "nested": memoryview(BYTES).cast("B", (2, 2, 4)),
    "wider": memoryview(BYTES).cast("I"),
    "wider and nested": memoryview(BYTES).cast("H", (2, 4)),
    "array": array("Q", BYTES),
    "mmap": mapped(),
    "a structure": (c_uint64 * 2).from_buffer_copy(BYTES),
}


@pytest.mark.parametrize("buffer", BUFFERS.values(), ids=BUFFERS)
def test_every_byte_of_a_buffer_is_sent(network, client, buffer):
    """Through every method that takes bytes, with other values before and after."""
    client.default.add(b"before", buffer, b"after")
    client.default.remove(buffer, BYTES)
    client.default.remove(BYTES, buffer)
    client.default.extend(buffer, 1)
    network.turn()
    add, remove, other, extend = network.peer.calls()
    assert [item.contents for item in api.read_add_request(add.params, DEFAULTS).items] == [b"before", BYTES, b"after"]
    assert api.read_remove_request(remove.params) == api.read_remove_request(other.params)
    assert api.read_remove_request(remove.params) == api.RemoveRequest(BYTES, BYTES)
    assert api.read_extend_request(extend.params).lease == BYTES


def test_a_buffer_that_changes_after_the_call_is_sent_as_it_was(network, client):
    content = bytearray(b"before")
    client.default.add(content)
    content[:] = b"after, and longer"
    network.turn()
    (call,) = network.peer.calls()
    assert api.read_add_request(call.params, DEFAULTS).items[0].contents == b"before"


def released():
    view = memoryview(b"gone")
    view.release()
    return view


def unmapped():
    made = mmap(-1, 1)
    made.close()
    return made


@pytest.mark.parametrize("value", [released(), unmapped()], ids=["released", "unmapped"])
def test_a_buffer_that_is_gone_is_refused(network, client, failure, value):
    for name, call in (
        ("contents[1]", client.default.add(b"", value)),
        ("item_id", client.default.remove(value, BYTES)),
        ("lease", client.default.remove(BYTES, value)),
        ("lease", client.default.extend(value, 1)),
    ):
        found = failure(call)
        assert isinstance(found, InvalidRequest)
        assert str(found).startswith(f"{name} is <")
        assert "whose bytes cannot be read" in str(found)
    network.turn()
    assert network.peer.calls() == []


def test_a_buffer_that_no_message_can_hold_is_refused_before_it_is_copied(client, failure):
    """Mapped memory that is never touched takes none."""
    with mmap(-1, DATA_BYTES_MAX + 1) as one:
        assert str(failure(client.default.add(b"", one))) == (
            "contents[1] is 536,870,912 bytes; the limit is 536,870,911"
        )


def test_buffers_that_together_are_longer_than_any_message_are_refused(client, failure, monkeypatch):
    monkeypatch.setattr("queueber.client_core.arguments.FRAME_BYTES_HIGHEST", 5)
    assert str(failure(client.default.add(b"abc", b"def", b"g"))) == "contents up to [1] is 6 bytes; the limit is 5"


# Every argument of every public method, with invalid values.

NOT_TEXT = [5, None, b"bytes", ["list"], 1.5]
NOT_A_NUMBER = ["1", b"1", 1.0, float("nan"), True, [1]]
NOT_BYTES = ["text", 5, None, [1, 2], 1.5, object()]
NOT_AN_ID = [*NOT_BYTES, bytearray(), bytearray(15), bytearray(17)]
NOT_A_PATH = [5, b"bytes", "", "a\0b", "a\ud800", ["list"]]
NOT_A_FUNCTION = [5, "policy", 1.5]
SPAN_MAX, COUNT_MAX = (1 << 64) - 1, (1 << 32) - 1
NOT_A_LIMIT = [*NOT_A_NUMBER, 0, -1, SPAN_MAX + 1]
NOT_A_POINT = [*NOT_A_NUMBER, None, -1, SPAN_MAX + 1]
NOT_LISTED = [*NOT_A_NUMBER, None, 0, 1_001]
NOT_A_FLAG = [None, 0, 1, "yes"]
NOT_A_NAME = [*NOT_TEXT, "", "x" * 256, "\ud800"]
NOT_A_SESSION = ["text", 5, [1, 2], object(), bytearray(15), bytearray(17)]


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no")


WRONG = {
    "connect": {
        "reactor": [None, "reactor", 5, object()],
        "url": [None, 5, b"127.0.0.1:9090", object(), "nowhere", "", "a host:1", "a\0:1", "unix:", "unix:a\0b"],
        "tls": [True, "ca.pem", {"ca": "ca.pem"}],
        "limits": [5, {"frame_bytes": 5}, *[evolve(DEFAULTS, frame_bytes=each) for each in (0, "5", 1 << 31)]],
        "attempts": [*NOT_A_NUMBER, 0, -1, 1 << 63],
        "retry_policy": NOT_A_FUNCTION,
        "timeout_ms": NOT_A_LIMIT,
        "resend_adds": [0, 1, "yes"],
    },
    "Tls": {
        "ca": NOT_A_PATH,
        "certificate": NOT_A_PATH,
        "key": NOT_A_PATH,
        "server_name": [5, b"bytes", "", ["list"]],
    },
    "new_item": {
        "contents": NOT_BYTES,
        "delay_ms": NOT_A_POINT,
        "due_ms": NOT_A_POINT,
        "expires_ms": NOT_A_POINT,
        "headers": [
            5,
            "n: v",
            ["n"],
            {"": b""},
            {5: b""},
            {"n": "text"},
            {"\ud800": b""},
            {"x" * 256: b""},
            {"n": bytes(4_096)},
            {str(number): b"" for number in range(65)},
        ],
        "dedup_key": [*NOT_BYTES, bytearray(256)],
        "until_removed": NOT_A_FLAG,
    },
    "Client.queue": {"name": [each for each in NOT_A_NAME if each is not None]},
    "Client.control": {"queue": NOT_A_NAME},
    "Client.queues": {
        "prefix": [*NOT_TEXT, "\ud800"],
        "label": [5, "ab", ("a",), ("a", 5), ("a", "b", "c"), ("\ud800", "")],
        "after": [*NOT_TEXT, "\ud800"],
        "limit": NOT_LISTED,
    },
    "Client.poll_any": {
        "queues": [5, None, "mail", (), ("mail",) * 65, {"mail": 0}, {"mail": 1_001}, {"mail": "1"}],
        "n": [*NOT_A_NUMBER, None, 0, -1, COUNT_MAX + 1],
        "lease_ms": [*NOT_A_NUMBER, None, 0, -1, SPAN_MAX + 1],
        "wait_ms": [*NOT_A_NUMBER, -1, SPAN_MAX + 1],
        "strict": NOT_A_FLAG,
        "session": NOT_A_SESSION,
        "timeout_ms": NOT_A_LIMIT,
    },
    "Client.attach": {
        "session": NOT_AN_ID,
        "grace_ms": NOT_A_POINT,
        "more": NOT_A_FLAG,
        "timeout_ms": NOT_A_LIMIT,
    },
    "Client.session": {
        "grace_ms": [*NOT_A_NUMBER, None, 0, 9_999, 8 * 24 * 3_600_000],
        "on_lost": NOT_A_FUNCTION,
    },
    "Client.ping": {"timeout_ms": NOT_A_LIMIT},
    "Client.close": {},
    "Client.limits": {},
    "Queue.add": {
        "contents": NOT_BYTES,
        "delay_ms": [*NOT_A_NUMBER, None, -1, SPAN_MAX + 1, 10**5_000, -(10**5_000), Unprintable()],
        "timeout_ms": NOT_A_LIMIT,
    },
    "Queue.poll": {
        "n": [*NOT_A_NUMBER, None, 0, -1, COUNT_MAX + 1],
        "lease_ms": [*NOT_A_NUMBER, None, 0, -1, SPAN_MAX + 1],
        "wait_ms": [*NOT_A_NUMBER, -1, SPAN_MAX + 1],
        "session": NOT_A_SESSION,
        "timeout_ms": NOT_A_LIMIT,
    },
    "Queue.add_items": {
        "items": [b"contents", ("contents", 0), 5],
        "request_id": NOT_A_SESSION,
        "timeout_ms": NOT_A_LIMIT,
    },
    "Queue.settle": {
        "entries": [
            5,
            b"lease",
            Settlement(BYTES, b"?", Action.FAIL),
            Settlement(b"", BYTES, Action.FAIL),
            Settlement(BYTES, BYTES, 1),
            Settlement(BYTES, BYTES, Action.FAIL, -1),
            Settlement(BYTES, BYTES, Action.FAIL, None, 5),
            Settlement(BYTES, BYTES, Action.FAIL, None, "x" * 4_097),
        ],
        "adds": [5, (5,), (AddTo(5, []),), (AddTo("mail", 5),), (AddTo("mail", [b"contents"]),)],
        "all_or_nothing": NOT_A_FLAG,
        "timeout_ms": NOT_A_LIMIT,
    },
    "Queue.fail": {
        "item_id": NOT_AN_ID,
        "lease": NOT_AN_ID,
        "error": [*NOT_TEXT, "x" * 4_097, "\ud800"],
        "delay_ms": [each for each in NOT_A_POINT if each is not None],
        "timeout_ms": NOT_A_LIMIT,
    },
    "Queue.defer": {
        "item_id": NOT_AN_ID,
        "lease": NOT_AN_ID,
        "delay_ms": [each for each in NOT_A_POINT if each is not None],
        "timeout_ms": NOT_A_LIMIT,
    },
    "Queue.reject": {
        "item_id": NOT_AN_ID,
        "lease": NOT_AN_ID,
        "error": [*NOT_TEXT, "x" * 4_097, "\ud800"],
        "timeout_ms": NOT_A_LIMIT,
    },
    "Queue.dead_letters": {},
    "Queue.items": {
        "prefetch": [*NOT_A_NUMBER, None, -1, 1_001],
        "lease_ms": [*NOT_A_NUMBER, None, 0, -1, SPAN_MAX + 1],
        "session": NOT_A_SESSION,
    },
    "QueueControl.stats": {"exact": NOT_A_FLAG},
    "QueueControl.settings": {},
    "QueueControl.configure": {"reset": [5, None, "ttl_ms", ["lease"], [5], [[]]]},
    "QueueControl.peek": {
        "state": [0, "ready", DeathReason.LOST],
        "after": NOT_BYTES,
        "limit": NOT_LISTED,
        "contents_bytes": [*NOT_A_NUMBER, 0, -1],
    },
    "QueueControl.get": {"item_id": NOT_AN_ID},
    "QueueControl.cancel": {"item_id": NOT_AN_ID},
    "QueueControl.kick": {"item_id": NOT_AN_ID},
    "QueueControl.reschedule": {"item_id": NOT_AN_ID, "due_ms": NOT_A_POINT},
    "QueueControl.purge": {"dead": NOT_A_FLAG},
    "QueueControl.pause": {"adds": NOT_A_FLAG, "polls": NOT_A_FLAG},
    "QueueControl.resume": {"adds": NOT_A_FLAG, "polls": NOT_A_FLAG},
    "QueueControl.redrive": {
        "ids": [5, None, b"id", (b"id",), ("id",)],
        "reason": [None, 1, "lost"],
        "limit": NOT_LISTED,
        "to": [*NOT_TEXT, "\ud800"],
    },
    "QueueControl.leases": {"after": NOT_BYTES, "limit": NOT_LISTED},
    "QueueControl.end_lease": {"lease": NOT_BYTES},
    "QueueControl.delete": {"force": NOT_A_FLAG},
    "Queue.remove": {"item_id": NOT_AN_ID, "lease": NOT_AN_ID, "timeout_ms": NOT_A_LIMIT},
    "Queue.extend": {
        "lease": NOT_AN_ID,
        "lease_ms": [*NOT_A_NUMBER, None, 0, -1, SPAN_MAX + 1],
        "timeout_ms": NOT_A_LIMIT,
    },
    "Admin.stats": {},
    "Admin.check": {"force": [None, 0, 1, "yes"]},
    "Admin.backup": {"target": [*NOT_A_PATH, None]},
    "Admin.backup_progress": {},
}
"""By method and argument."""

RIGHT = {
    "connect": {"reactor": Clock(), "url": "127.0.0.1:9090"},
    "Client.queue": {"name": "mail"},
    "Queue.add": {"contents": b"x"},
    "Queue.remove": {"item_id": BYTES, "lease": BYTES},
    "Queue.fail": {"item_id": BYTES, "lease": BYTES},
    "Queue.defer": {"item_id": BYTES, "lease": BYTES},
    "Queue.reject": {"item_id": BYTES, "lease": BYTES},
    "Client.control": {"queue": "mail"},
    "Client.poll_any": {"queues": ["mail"]},
    "Client.attach": {"session": BYTES},
    "new_item": {"contents": b"x"},
    "QueueControl.reschedule": {"item_id": BYTES, "due_ms": 1},
    "Queue.extend": {"lease": BYTES, "lease_ms": 1},
    "Admin.backup": {"target": "/backup"},
}
"""The required arguments of each method."""

NOT_CALLED = {
    "ControlOutcome",
    "Item",
    "Items",
    "Session",
    "SessionState",
    "LeaseLost",
    "ItemState",
    "Action",
    "AddTo",
    "DeathReason",
    "DeliveryFacts",
    "NewItem",
    "Outcome",
    "Settled",
    "Settlement",
    "CallTimedOut",
    "GIVE_BACK_MS",
    "Batch",
    "PolledItem",
    "ServerLimits",
    "NotConnected",
    "OutcomeUnknown",
    "ReplyTooLong",
}
"""Public names that a program does not call."""


def public_methods():
    """Every callable that a program reaches from `queueber.client`, by name, with its arguments."""
    found = {"connect": connect, "Tls": Tls, "new_item": new_item}
    for kind in (Client, Queue, QueueControl, Admin):
        for name, method in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_"):
                found[f"{kind.__name__}.{name}"] = method
    # What `configure` changes has a test of its own.
    return {name: {*inspect.signature(method).parameters} - {"self", "changes"} for name, method in found.items()}


def test_every_argument_of_every_public_method_is_in_the_table():
    assert set(queueber.client.__all__) - NOT_CALLED == {"connect", "new_item", "Client", "Queue", "Tls"}
    assert public_methods() == {name: set(arguments) for name, arguments in WRONG.items()}


LONG = 200
"""Characters of a value that no error shows."""


def called(method, client, network, arguments):
    """Return the error of a call of *method*, raised or through a Deferred."""
    arguments = {**RIGHT.get(method, {}), **arguments}
    owners = {
        "Client": client,
        "Queue": client.default,
        "QueueControl": client.control("mail"),
        "Admin": client.admin,
    }
    owner, _, name = method.partition(".")
    function = getattr(owners[owner], name) if name else {"connect": connect, "Tls": Tls, "new_item": new_item}[owner]
    positional = [arguments.pop(name) for name in ("contents", "items", "entries") if name in arguments]
    failures = []
    try:
        result = function(*positional, **arguments)
    except InvalidRequest as why:
        return why
    assert isinstance(result, Deferred), f"{method} took {arguments}"
    result.addErrback(failures.append)
    return failures[0].value if failures else None


@pytest.mark.parametrize(
    ("method", "argument", "value"),
    [
        pytest.param(method, argument, value, id=f"{method}-{argument}-{at}")
        for method, arguments in WRONG.items()
        for argument, values in arguments.items()
        for at, value in enumerate(values)
    ],
)
def test_an_error_names_the_argument_the_allowed_values_and_its_value(network, client, method, argument, value):
    why = called(method, client, network, {argument: value})
    assert type(why) is InvalidRequest
    text = str(why)
    assert argument.removesuffix("_ms") in text or (argument == "url" and "address" in text)
    assert re.search(r"must be|the least is|the limit is|neither HOST:PORT|is empty|not UTF-8", text)
    if isinstance(value, str | bytes | float | bool | list | None) and len(repr(value)) < LONG:
        assert (repr(value) in text) or "is empty" in text
    assert "\n" not in text
    assert len(text) <= LONG
    network.turn()
    assert network.peer.calls() == []


class Whole:
    """A number of another library's."""

    def __index__(self):
        return 7


def test_whole_numbers_of_other_kinds_and_paths_as_text_are_taken(network, client):
    client.default.poll(Whole(), lease_ms=Whole(), wait_ms=Whole())
    client.default.add(b"", delay_ms=Whole())
    network.turn()
    poll, add = network.peer.calls()
    assert api.read_poll_request(poll.params) == api.PollRequest(7, 7, 7, False)
    assert api.read_add_request(add.params, DEFAULTS).items == [api.NewItem(b"", 7)]
    for kind in (str, Path):
        with pytest.raises(InvalidRequest, match=r"^there-is-none\.pem: No such file"):
            connect(Clock(), network, tls=Tls(ca=kind("there-is-none.pem"), server_name="localhost"))
