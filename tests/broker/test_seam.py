"""
The values that pass between connections and the broker are plain.

So connections could be in other processes: no value refers to a socket, a
message, a thread or a Deferred.
"""

import inspect
import typing

import pytest

from queueber.broker import Broker, Delivery, Item, Key, Lease, Plan, Queue, Waiter
from queueber.broker.adds import Adds
from queueber.broker.model import Facts
from queueber.broker.polls import Polls
from queueber.broker.settle import SettleReply, Settles
from queueber.errors import QueueberError
from queueber.values import Action, ItemOptions, NewItem, Outcome, Settled, Settlement

CALLS = [Broker.queue, Adds.add, Broker.remove, Broker.extend, Broker.poll, Settles.settle]
CALLS += [Polls.cancel, Polls.pause, Polls.resume]

PLAIN = {bytes, int, str, bool, type(None), NewItem}
HANDLES = {Queue: "a queue's name", Waiter: "a poll's number"}
"""Objects for which another process would use a string or a number."""

VALUES = {NewItem, Settlement, Item, Key}
"""Named tuples of such values."""

BACK = {Item, Facts, Key, Lease, QueueberError}


def atoms(hint):
    """Yield the classes that a type is made of."""
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
    assert {atom for each in given.values() for atom in each} <= PLAIN | VALUES | HANDLES.keys()


@pytest.mark.parametrize("call", CALLS[1:6], ids=lambda call: call.__qualname__)
def test_a_call_returns_a_plan_with_a_plain_reply_or_a_waiter(call):
    hint = typing.get_type_hints(call)["return"]
    if hint is not Waiter:
        assert typing.get_origin(hint) is Plan
        assert set(atoms(hint)) <= PLAIN | {QueueberError, SettleReply}


@pytest.mark.parametrize("kind", [NewItem, ItemOptions, Settlement, SettleReply, Settled])
def test_values_are_made_of_plain_ones(kind):
    found = {atom for hint in typing.get_type_hints(kind).values() for atom in atoms(hint)}
    assert found <= PLAIN | {ItemOptions, Settled, Action, Outcome}


def test_a_delivery_is_made_of_plain_values():
    for kind in (Delivery, Item):
        hints = typing.get_type_hints(kind)
        found = {atom for hint in hints.values() for atom in atoms(hint)}
        assert found <= PLAIN | HANDLES.keys() | BACK
