"""
What crosses from connections to the broker and back are plain values.

So connections could live in other processes: nothing that crosses refers to a
socket, a message, a thread or a Deferred.
"""

import inspect
import typing

import pytest

from queueber.broker import Broker, Delivery, Item, Key, Lease, Plan, Queue, Waiter
from queueber.broker.adds import Adds
from queueber.broker.polls import Polls
from queueber.errors import QueueberError

CALLS = [Broker.queue, Adds.add, Broker.remove, Broker.extend, Broker.poll]
CALLS += [Polls.cancel, Polls.pause, Polls.resume]

PLAIN = {bytes, int, str, bool, type(None)}
HANDLES = {Queue: "a queue's name", Waiter: "a poll's number"}
"""What a process of its own would name by a string or a number."""

BACK = {Item, Key, Lease, QueueberError}


def atoms(hint):
    """The classes that a type is made of."""
    supertype = getattr(hint, "__supertype__", None)
    if supertype is not None:
        yield from atoms(supertype)
    elif typing.get_args(hint):
        for part in typing.get_args(hint):
            yield from atoms(part)
    elif hint is not Ellipsis:
        yield hint


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__qualname__)
def test_a_call_takes_plain_values(call):
    hints = typing.get_type_hints(call)
    given = {name: set(atoms(hint)) for name, hint in hints.items() if name != "return"}
    assert given.keys() <= set(inspect.signature(call).parameters)
    assert {atom for each in given.values() for atom in each} <= PLAIN | HANDLES.keys()


@pytest.mark.parametrize("call", CALLS[1:5], ids=lambda call: call.__qualname__)
def test_a_call_gives_a_plan_whose_reply_is_plain_or_a_poll_to_wait_for(call):
    hint = typing.get_type_hints(call)["return"]
    if hint is not Waiter:
        assert typing.get_origin(hint) is Plan
        assert set(atoms(hint)) <= PLAIN | {QueueberError}


def test_what_a_poll_gets_is_made_of_plain_values():
    for kind in (Delivery, Item):
        hints = typing.get_type_hints(kind)
        found = {atom for hint in hints.values() for atom in atoms(hint)}
        assert found <= PLAIN | HANDLES.keys() | BACK
