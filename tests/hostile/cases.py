"""
Messages that no peer should send, each with the way it must end.

A case's stream is sent on a connection that has bootstrapped (export 0) and is
followed by a sound call.  `ABORT`: the connection ends, with a reason.  `FAILED`,
`UNIMPLEMENTED` and `OVERLOADED`: that exception, and the sound call is answered.
`OK`: results, and the sound call is answered.  `IGNORED` and `ECHO`: nothing, or
an `unimplemented`, and the sound call is answered.  `QUIET`: the connection ends
without a message.
"""

from struct import Struct, pack, unpack

from attrs import frozen

from queueber.api import (
    ADD,
    BROKER_INTERFACE_ID,
    POLL,
    SETTLE,
    AddRequest,
    NewItem,
    PollRequest,
    write_add_request,
    write_poll_request,
)
from queueber.capnp import layout
from queueber.capnp.builder import Body
from queueber.capnp.framing import framed
from queueber.rpc import PromisedAnswer, encoder
from queueber.units import SpanMs
from tests.hostile.pieces import (
    BIT,
    BYTE,
    COMPOSITE,
    CONTENTS_AT,
    EIGHT,
    ITEMS_AT,
    MOST,
    POINTER,
    QUESTION,
    TWO,
    VOID,
    add_of_one,
    add_with,
    call,
    far_pointer,
    in_segments,
    list_pointer,
    message,
    stream,
    struct_pointer,
    tag,
    words,
)

ABORT, FAILED, UNIMPLEMENTED, OVERLOADED = "abort", "failed", "unimplemented", "overloaded"
OK, IGNORED, ECHO, QUIET = "ok", "ignored", "echo", "quiet"


@frozen
class Case:
    """One stream, its entry in the catalogue, and how it ends."""

    entry: str
    name: str
    stream: bytes
    outcome: str

    def __str__(self) -> str:
        return f"{self.entry}-{self.name}"


ONE = write_add_request(AddRequest([NewItem(b"sound", SpanMs(0))]))
SOUND = call(ONE)


def deep_unimplemented(depth):
    """Return `unimplemented` in `unimplemented`, nested *depth* times."""
    inner = {"finish": {"questionId": 1}}
    segment = layout("Message").build(**inner)
    for _ in range(depth):
        body = Body(int.from_bytes(segment[:8], "little"), [segment[8:]], len(segment) // 8 - 1)
        segment = layout("Message").build(unimplemented=body)
    return framed(segment)


def of_kind(member):
    """Return a message of that kind without content."""
    return stream(words(struct_pointer(0, 1, 1), layout("Message").members[member], 0))


def alike(name, fields, count, step=0):
    """
    Return a list of *count* structs with these *fields*, in whose first words *step* is added from each to the next.

    One by one, a hundred thousand would take longer than all tests of this module.
    """
    shape = layout(name)
    size = shape.data_words + shape.pointers
    first, *rest = unpack(f"<{size}Q", shape.build(**fields)[8:])
    pack_one = Struct(f"<{size}Q").pack
    elements = b"".join([pack_one(first + step * number, *rest) for number in range(count)])
    head = words(tag(count, shape.data_words, shape.pointers))
    return Body(list_pointer(0, COMPOSITE, count * size), [head, elements], 1 + count * size)


def transform(count, path=()):
    """Return a call to a promised answer, along *count* steps to nowhere, or *path*."""
    ops = alike("PromisedAnswer.Op", {"noop": None}, count) if count else [{"getPointerField": each} for each in path]
    target = {"promisedAnswer": {"questionId": 0, "transform": ops}}
    return message(call={"questionId": QUESTION, "target": target})


def with_capabilities(count):
    """Return a valid add with a table of capabilities that it does not use."""
    content = Body(int.from_bytes(ONE[:8], "little"), [ONE[8:]], len(ONE) // 8 - 1)
    params = {"content": content, "capTable": alike("CapDescriptor", {"senderHosted": 0}, count, 1 << 32)}
    fields = {"questionId": QUESTION, "target": {"importedCap": 0}, "methodId": ADD, "params": params}
    return message(call=fields | {"interfaceId": 0x8323A518D3254563})


def reason_of(size, end=b"\0"):
    """Return an Abort whose reason is *size* bytes that are not UTF-8, and then *end*."""
    text = b"\xff" * size + end
    reason = Body(list_pointer(0, BYTE, len(text)), [text + bytes(-len(text) % 8)], (len(text) + 7) // 8)
    return message(abort={"reason": reason})


LARGE = reason_of(10_000_000)

FRAMING = [
    Case("W3", "count-overflow", b"\xff" * 4 + bytes(4), ABORT),
    Case("W4", "513-segments", pack("<513I", 512, *[0] * 512) + bytes(4), ABORT),
    Case("W4", "512-segments", stream(SOUND[8:], *[b""] * 511), OK),
    Case("W5", "4-G-words", pack("<II", 0, 0xFFFFFFFF), ABORT),
    Case("W6", "above-the-frame", pack("<IIII", 1, 1 << 20, 1 << 20, 0), ABORT),
    Case("W6", "many-sum-up", pack("<I3II", 2, *[(1 << 32) - 1] * 3, 0), ABORT),
    Case("W7", "no-words", pack("<II", 0, 0), ABORT),
    Case("W7", "first-segment-empty", stream(b"", words(0)), ABORT),
    Case("W9", "http", b"GET /manager/html HTTP/1.1\r\nHost: localhost\r\n\r\n", ABORT),
    Case("W9", "tls", bytes.fromhex("16030100c8010000c40303") + bytes(range(200)), ABORT),
    Case("W9", "ssh", b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n", ABORT),
    Case("W10", "packed", bytes.fromhex("100511510103 5108 00ff".replace(" ", "")) * 8, ABORT),
    Case("W11", "padding", stream(SOUND[8:], b"", padding=b"\xa5"), OK),
    Case("W13", "null-root", stream(words(0)), IGNORED),
    Case("W14", "list-root", stream(words(list_pointer(0, EIGHT, 1), 0)), ABORT),
    Case("W14", "far-root", stream(words(far_pointer(0, 0))), ABORT),
    Case("W14", "capability-root", stream(words(3)), ABORT),
]

POINTERS = [
    Case("W15", "after-the-end", add_with(struct_pointer(1_000, 1, 1)), ABORT),
    Case("W15", "before-the-start", add_with(list_pointer(-1_000, EIGHT, 1)), ABORT),
    Case("W15", "empty-struct", call(words(struct_pointer(-1, 0, 0))), OK),
    Case("W16", "no-such-segment", add_with(far_pointer(7, 0)), ABORT),
    Case("W16", "far-to-itself", add_with(far_pointer(0, ITEMS_AT)), ABORT),
    Case("W16", "far-in-a-circle", in_segments(add_with(far_pointer(1, 0)), [far_pointer(0, ITEMS_AT)]), ABORT),
    Case("W16", "far-far-far", in_segments(add_with(far_pointer(1, 0)), [far_pointer(1, 1), far_pointer(1, 0)]), ABORT),
    Case(
        "W16", "double-without-a-tag", in_segments(add_with(far_pointer(1, 0, double=True)), [far_pointer(0, 0)]), ABORT
    ),
    Case("W16", "double-on-a-struct", in_segments(add_with(far_pointer(1, 0, double=True)), [0, 0]), ABORT),
    Case(
        "W16",
        "double-tag-with-an-offset",
        in_segments(add_with(far_pointer(1, 0, double=True)), [far_pointer(0, 0), list_pointer(MOST >> 1, POINTER, 9)]),
        ABORT,
    ),
    Case("W17", "unimplemented-64", deep_unimplemented(64), IGNORED),
    Case("W17", "unimplemented-5000", deep_unimplemented(5_000), IGNORED),
    Case(
        "W18",
        "aliases",
        add_with(
            list_pointer(0, COMPOSITE, 1_000),
            tag(1_000, 0, 1),
            *[list_pointer(999 - index, BYTE, 60_000) for index in range(1_000)],
            bytes(60_000),
        ),
        ABORT,
    ),
    Case("W18", "2000-aliases", add_with(list_pointer(0, COMPOSITE, 2_000), tag(2_000, 0, 1), bytes(16_000)), FAILED),
    Case("W19", "most-structs-of-nothing", add_with(list_pointer(0, COMPOSITE, 0), tag(MOST, 0, 0)), FAILED),
    Case("W19", "most-voids", add_with(list_pointer(0, VOID, MOST)), FAILED),
    Case("W20", "a-million-of-nothing", add_with(list_pointer(0, COMPOSITE, 0), tag(1_000_000, 0, 0)), FAILED),
    Case("W21", "tag-overruns", add_with(list_pointer(0, COMPOSITE, 2), tag(3, 1, 1), 0, 0), ABORT),
    Case("W21", "tag-negative", add_with(list_pointer(0, COMPOSITE, 2), tag(-1, 1, 1), 0, 0), ABORT),
    Case("W21", "tag-is-a-list", add_with(list_pointer(0, COMPOSITE, 2), list_pointer(0, BYTE, 1), 0, 0), ABORT),
    Case("W21", "bits", add_with(list_pointer(0, BIT, 8), 0), ABORT),
    Case("W22", "a-struct", add_of_one(struct_pointer(0, 1, 0), 0), ABORT),
    Case("W22", "bools", add_of_one(list_pointer(0, BIT, 64), 0), ABORT),
    Case("W22", "twos", add_of_one(list_pointer(0, TWO, 4), 0), ABORT),
    Case("W22", "a-capability", add_of_one(3), ABORT),
    Case("W23", "one-byte-too-long", add_of_one(list_pointer(0, BYTE, 9), 0), ABORT),
    Case("W23", "longest", add_of_one(list_pointer(0, BYTE, MOST)), ABORT),
    Case("W23", "into-the-next-segment", in_segments(add_of_one(list_pointer(0, BYTE, 16), 0), [0, 0]), ABORT),
    Case("W24", "structs-for-bytes", add_of_one(list_pointer(0, COMPOSITE, 1), tag(1, 1, 0), 0), ABORT),
    Case("W25", "newer-item", add_with(list_pointer(0, COMPOSITE, 8), tag(1, 4, 3), bytes(56), 0), OK),
    Case("W25", "older-item", add_with(list_pointer(0, COMPOSITE, 1), tag(1, 1, 0), 0), OK),
    Case("W26", "reserved-bits", add_of_one(3 | 1 << 2), ABORT),
    Case("W26", "kind-to-come", add_of_one(3 | 5 << 2 | 9 << 32), ABORT),
    Case("W27", "no-nul", reason_of(7, b"x"), ABORT),
    Case("W27", "not-utf-8", reason_of(40), QUIET),
    Case("W27", "10-MB", LARGE, QUIET),
]
assert CONTENTS_AT == ITEMS_AT + 2

WAIT = write_poll_request(PollRequest(SpanMs(1), 1, None, no_wait=False))

CONVERSATION = [
    Case("R1", "no-such-export", message(call={"questionId": QUESTION, "target": {"importedCap": 99}}), ABORT),
    Case("R2", "call-again", call(WAIT, method=POLL) * 2, ABORT),
    Case("R2", "bootstrap-again", message(bootstrap={"questionId": QUESTION}) * 2, ABORT),
    Case("R3", "interface", call(ONE, interface=1), UNIMPLEMENTED),
    Case("R3", "method-99", call(ONE, method=99), UNIMPLEMENTED),
    Case("R3", "method-65535", call(ONE, method=65_535), UNIMPLEMENTED),
    Case("R3", "broker-method", call(ONE, method=9, interface=BROKER_INTERFACE_ID), UNIMPLEMENTED),
    Case("R4", "obsolete-save", of_kind("obsoleteSave"), ECHO),
    Case("R4", "obsolete-delete", of_kind("obsoleteDelete"), ECHO),
    Case("R4", "provide", message(provide={"questionId": 5, "target": {"importedCap": 0}}), ECHO),
    Case("R4", "accept", message(accept={"questionId": 5}), ECHO),
    Case("R4", "join", message(join={"questionId": 5, "target": {"importedCap": 0}}), ECHO),
    Case("R4", "third-party-answer", stream(words(struct_pointer(0, 1, 1), 14, 0)), ECHO),
    Case("R4", "kind-to-come", stream(words(struct_pointer(0, 1, 1), 999, 0)), ECHO),
    Case("R4", "large-kind-to-come", stream(words(struct_pointer(0, 1, 1), 999, 0, bytes(1 << 20))), ECHO),
    Case("R5", "return-for-nothing", message(**{"return": {"answerId": 3, "canceled": None}}), ABORT),
    Case("R6", "finish-unknown", message(finish={"questionId": 999}), IGNORED),
    Case("R6", "finish-twice", message(finish={"questionId": 0, "releaseResultCaps": False}) * 2, IGNORED),
    Case("R7", "too-many", message(release={"id": 0, "referenceCount": 1_000}), ABORT),
    Case("R7", "unknown", message(release={"id": 99, "referenceCount": 1}), ABORT),
    Case("R8", "resolve", message(resolve={"promiseId": 99, "cap": {"none": None}}), IGNORED),
    Case(
        "R8",
        "disembargo",
        message(disembargo={"target": {"importedCap": 99}, "context": {"senderLoopback": 1}}),
        ABORT,
    ),
    Case(
        "R9",
        "yourself",
        message(call={"questionId": QUESTION, "target": {"importedCap": 0}, "sendResultsTo": {"yourself": None}}),
        UNIMPLEMENTED,
    ),
    Case(
        "R9",
        "third-party",
        message(
            call={"questionId": QUESTION, "target": {"importedCap": 0}, "sendResultsTo": {"thirdParty": Body(0, [], 0)}}
        ),
        UNIMPLEMENTED,
    ),
    Case(
        "R10",
        "deprecated-object",
        message(bootstrap={"questionId": QUESTION, "deprecatedObjectId": Body(list_pointer(0, BYTE, 0), [], 0)}),
        FAILED,
    ),
    Case(
        "R11",
        "pipelined",
        message(bootstrap={"questionId": 1})
        + encoder.pipelined_call(QUESTION, PromisedAnswer(1), 0x8323A518D3254563, ADD, ONE),
        OK,
    ),
    Case("R12", "not-a-capability", transform(0, (5,)), FAILED),
    Case("R12", "100000-steps", transform(100_000), FAILED),
    Case("R13", "100000-capabilities", with_capabilities(100_000), OK),
    Case("R17", "abort", call(WAIT, method=POLL) + message(abort={"reason": "enough"}), QUIET),
    Case("R21", "unimplemented-return", message(unimplemented={"return": {"answerId": 0}}), ABORT),
    Case(
        "R22",
        "no-promise-pipelining",
        message(
            call={"questionId": QUESTION, "target": {"importedCap": 0}, "interfaceId": 1, "noPromisePipelining": True}
        ),
        UNIMPLEMENTED,
    ),
    Case(
        "R22",
        "tail-call-and-only-pipeline",
        message(
            call={
                "questionId": QUESTION,
                "target": {"importedCap": 0},
                "interfaceId": 1,
                "allowThirdPartyTailCall": True,
                "onlyPromisePipeline": True,
            }
        ),
        UNIMPLEMENTED,
    ),
]


def add_request(options, *content):
    """Return an add of 1,000 items without a size, whose `options` is the pointer given, and then *content*."""
    request = struct_pointer(0, 0, 3), list_pointer(2, VOID, 1_000), 0, options
    return call(words(struct_pointer(0, 0, 1), *request, *content))


def headers_of(count):
    """Return a list of *count* headers, all with one name of 248 bytes."""
    pointers = []
    for header in range(count):
        pointers += list_pointer(2 * (count - header) - 1, BYTE, 249), 0
    return [tag(count, 0, 2), *pointers, b"x" * 248 + bytes(8)]


def shared_headers(count):
    """Return options of 1,000 items, all of which point at the same *count* headers."""
    to_headers = [list_pointer(999 - place, COMPOSITE, 2 * count) for place in range(1_000)]
    return add_request(list_pointer(0, POINTER, 1_000), *to_headers, *headers_of(count))


def settle_with(*entries):
    """Return a settle whose `entries` are these words; the first is the pointer."""
    return call(words(struct_pointer(0, 0, 1), struct_pointer(0, 1, 1), 0, *entries), method=SETTLE)


OPERATIONS = [
    Case("W18", "options-share-their-headers", shared_headers(8), ABORT),
    Case("W20", "a-million-options", add_request(list_pointer(0, COMPOSITE, 0), tag(1_000_000, 0, 0)), FAILED),
    Case("W20", "65-headers", add_request(list_pointer(0, POINTER, 1), list_pointer(0, VOID, 65)), FAILED),
    Case("W20", "a-million-settlements", settle_with(list_pointer(0, COMPOSITE, 0), tag(1_000_000, 0, 0)), FAILED),
    Case("W20", "most-settlements-of-nothing", settle_with(list_pointer(0, VOID, MOST)), FAILED),
    Case("W21", "settlements-overrun", settle_with(list_pointer(0, COMPOSITE, 5), tag(2, 2, 3), bytes(40)), ABORT),
    Case("W22", "settlements-are-bits", settle_with(list_pointer(0, BIT, 8), 0), ABORT),
]

CASES = FRAMING + POINTERS + CONVERSATION + OPERATIONS
