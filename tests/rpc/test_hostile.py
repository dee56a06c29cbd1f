"""
Damaged and random bytes.

The invariant: for all bytes a connection yields events or raises
`RemoteProtocolError`, and the reading functions raise that or `InvalidRequest`.
They raise nothing else and take little time, and the tables stay consistent.
"""

import random
import time

import pytest

from queueber.api import (
    QUEUE_RESPONSE,
    AddRequest,
    ExtendRequest,
    NewItem,
    PolledItem,
    PollRequest,
    PollResponse,
    RemoveRequest,
    read_add_request,
    read_add_response,
    read_bootstrap,
    read_extend_request,
    read_extend_response,
    read_poll_request,
    read_poll_response,
    read_queue_request,
    read_queue_response,
    read_remove_request,
    read_remove_response,
    write_add_request,
    write_add_responses,
    write_extend_request,
    write_extend_responses,
    write_poll_request,
    write_poll_responses,
    write_queue_request,
    write_remove_request,
    write_remove_responses,
)
from queueber.capnp import layout
from queueber.capnp.framing import framed
from queueber.capnp.packing import unpack
from queueber.errors import InvalidRequest, Kind, RemoteProtocolError
from queueber.limits import Limits
from queueber.rpc import Calls, Connection, ImportedCap, PromisedAnswer, Results, Returned
from queueber.units import SpanMs, WallMs

LIMITS = Limits()
ITEMS = [NewItem(bytes([65 + index]) * 30, SpanMs(index)) for index in range(4)]
REQUESTS = [
    (1, write_add_request(AddRequest(ITEMS)), lambda params: read_add_request(params, LIMITS)),
    (2, write_remove_request(RemoveRequest(b"i" * 16, b"l" * 16)), read_remove_request),
    (3, write_poll_request(PollRequest(SpanMs(1), 2, SpanMs(3), no_wait=False)), read_poll_request),
    (4, write_extend_request(ExtendRequest(b"l" * 16, SpanMs(5))), read_extend_request),
    (5, write_queue_request("mail"), read_queue_request),
]
RESPONSES = [
    (write_add_responses([[b"i" * 16, b"j" * 16]])[0], read_add_response),
    (write_remove_responses([True])[0], read_remove_response),
    (
        write_poll_responses(
            [PollResponse([PolledItem(b"c" * 20, b"i" * 16, 1, WallMs(2))] * 3, b"l" * 16, WallMs(9))]
        )[0],
        read_poll_response,
    ),
    (write_extend_responses([False])[0], read_extend_response),
    (QUEUE_RESPONSE, read_queue_response),
    (QUEUE_RESPONSE, read_bootstrap),
]
MEMBERS = [
    {"bootstrap": {"questionId": 8}},
    {"finish": {"questionId": 0}},
    {"release": {"id": 0, "referenceCount": 1}},
    {"resolve": {"promiseId": 1, "cap": {"senderHosted": 2}}},
    {"disembargo": {"target": {"importedCap": 0}, "context": {"senderLoopback": 3}}},
    {"unimplemented": {"release": {"id": 1}}},
    {"abort": {"reason": "because"}},
    {"join": {"questionId": 4, "target": {"importedCap": 0}}},
]


def client_says():
    """Return the messages of a conversation, to the server and to the client."""
    client, server = Connection(limits=LIMITS), Connection(limits=LIMITS, bootstrap=object())
    root = client.bootstrap()
    heard, said = client.data_to_send(), b""
    list(server.receive_data(heard))
    said += server.data_to_send()
    list(client.receive_data(said))
    for method, content, _ in REQUESTS:
        client.call(ImportedCap(0), 1, method, content)
    client.call(PromisedAnswer(root, (0, 1)), 1, 1, REQUESTS[0][1])
    more = client.data_to_send()
    calls = [event for event in server.receive_data(more) if isinstance(event, Calls)]
    for call, (content, _) in zip(calls, RESPONSES, strict=False):
        server.return_capabilities(call.answer, content, [object()] if content is QUEUE_RESPONSE else ())
    said += server.data_to_send()
    rest = b"".join(framed(layout("Message").build(**member)) for member in MEMBERS)
    return heard + more + rest, said + rest


TO_SERVER, TO_CLIENT = client_says()


def serve(stream):
    """Read *stream* as a server, and handle every event."""
    server = Connection(limits=Limits(frame_bytes=1 << 16), bootstrap=object())
    try:
        for event in server.receive_data(stream):
            if isinstance(event, Calls):
                answer_call(server, event)
            server.check()
    except RemoteProtocolError:
        assert server.closed
    server.data_to_send()


def answer_call(server, event):
    read = {method: read for method, _, read in REQUESTS}.get(event.method_id, read_remove_request)
    try:
        read(event.params)
    except (InvalidRequest, RemoteProtocolError) as why:
        server.return_exception(event.answer, Kind.FAILED, str(why))
    else:
        server.return_capabilities(event.answer, QUEUE_RESPONSE, [object()])


def listen(stream):
    """Read *stream* as a client, and handle every event."""
    client = Connection(limits=Limits(frame_bytes=1 << 16))
    for _ in range(1 + len(RESPONSES)):
        client.bootstrap()
    try:
        for event in client.receive_data(stream):
            if isinstance(event, Returned) and isinstance(event.outcome, Results):
                for _, read in RESPONSES:
                    try:
                        read(event.outcome)
                    except RemoteProtocolError:
                        continue
                client.finish(event.question)
            client.check()
    except RemoteProtocolError:
        assert client.closed
    client.data_to_send()


def mutated(stream, dice):
    """Change a few bytes or bits of *stream*, and sometimes remove some."""
    changed = bytearray(stream)
    for _ in range(dice.choice([1, 1, 1, 2, 5])):
        at = dice.randrange(len(changed))
        changed[at] = dice.choice([0, 1, 0xFF, changed[at] ^ 1 << dice.randrange(8), dice.randrange(256)])
    if dice.random() < 0.1:
        del changed[dice.randrange(len(changed)) :]
    return bytes(changed)


@pytest.mark.slow
@pytest.mark.untraced
@pytest.mark.parametrize(("stream", "take"), [(TO_SERVER, serve), (TO_CLIENT, listen)])
def test_damaged_messages_never_raise_anything_else(stream, take):
    dice = random.Random(1)
    take(stream)
    slowest = 0.0
    for _ in range(4_000):
        damaged = mutated(stream, dice)
        begun = time.thread_time()
        take(damaged)
        slowest = max(slowest, time.thread_time() - begun)
    assert slowest < 0.5


@pytest.mark.slow
@pytest.mark.untraced
@pytest.mark.parametrize("take", [serve, listen])
def test_every_bit_of_a_short_conversation_may_be_wrong(take):
    stream = {serve: TO_SERVER, listen: TO_CLIENT}[take][:600]
    for at in range(len(stream)):
        for bit in range(8):
            take(stream[:at] + bytes([stream[at] ^ 1 << bit]) + stream[at + 1 :])


@pytest.mark.untraced
@pytest.mark.parametrize("take", [serve, listen])
def test_noise_never_raises_anything_else(take):
    dice = random.Random(2)
    for _ in range(500):
        words = dice.randrange(1, 40)
        take(framed(dice.randbytes(8 * words)))
        take(dice.randbytes(8 * words))
        # Mostly small numbers make pointers that look like pointers.
        take(framed(bytes(dice.choice([0, 0, 0, 1, 2, 4, 255]) for _ in range(8 * words))))


@pytest.mark.untraced
@pytest.mark.parametrize("name", ["StoredItem", "Message", "AddRequest", "PollResponse"])
def test_damaged_values_never_raise_anything_else(name):
    value = {
        "StoredItem": {"contents": b"c" * 20, "addedAtMs": 1, "attempts": 2},
        "Message": {"return": {"answerId": 1, "exception": {"reason": "no"}}},
        "AddRequest": {"items": [{"contents": b"c"}, {"contents": b"d"}]},
        "PollResponse": {"items": [{"contents": b"c", "id": b"i"}], "lease": b"l"},
    }[name]
    sound, dice = layout(name).build(**value), random.Random(3)
    for _ in range(2_000):
        try:
            layout(name).read(mutated(sound, dice))
        except RemoteProtocolError:
            continue


def test_damaged_packing_never_raises_anything_else():
    dice = random.Random(4)
    for _ in range(2_000):
        try:
            unpack(dice.randbytes(dice.randrange(60)))
        except RemoteProtocolError:
            continue
