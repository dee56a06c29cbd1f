"""
The contents of messages as pycapnp reads them: the worker of `differential.py`.

A process of its own, because some messages end pycapnp's process.  Standard input
has a length, a reader's number and a framed message, repeatedly.  Each is
answered with one line of JSON on standard output, in the form of `views.py`.
"""

import json
import sys
from pathlib import Path
from struct import Struct

import capnp

capnp.remove_import_hook()

SITE_PACKAGES = Path(capnp.__file__).parents[1]
QUEUEBER = capnp.load(
    str(Path(__file__).parents[2] / "schema" / "queueber.capnp"),
    imports=[str(SITE_PACKAGES)],
)
RPC = capnp.load(str(SITE_PACKAGES / "capnp" / "rpc.capnp"), imports=[str(SITE_PACKAGES)])

HEAD = Struct("<IH")
REQUEST_READERS = 25
RESPONSE_READERS = 26
"""The numbers of readers in `views.py`; pycapnp has the first of each."""

WORDS_MAX = 1 << 20
REASON_BYTES_MAX = 1_000

QUEUE, BROKER = QUEUEBER.Queue.schema.methods, QUEUEBER.Broker.schema.methods
CONTROL = QUEUEBER.QueueControl.schema.methods
REQUESTS = [
    *(QUEUE["add"], QUEUE["remove"], QUEUE["poll"], QUEUE["extend"], BROKER["queue"]),
    *(QUEUE["settle"], BROKER["attach"], BROKER["pollAny"], CONTROL["redrive"]),
]
RESPONSES = [QUEUE["add"], QUEUE["remove"], QUEUE["poll"], QUEUE["extend"], QUEUE["settle"], BROKER["attach"]]


def span(request, field):
    ms = getattr(request, field + "Ms")
    return ms or getattr(request, field + "Secs") * 1_000


def hexes(found):
    return [bytes(each).hex() for each in found]


def headers_of(found):
    return [[header.name, bytes(header.value).hex()] for header in found]


def new_items(items, options):
    """The items with their options; None for those whose options are all defaults."""
    found = [
        [headers_of(each.headers), bytes(each.dedupKey).hex(), each.untilRemoved, each.expiresAtMs, each.dueMs]
        for each in options
    ]
    found = [None if each == [[], "", False, 0, 0] else each for each in found]
    found += [None] * (len(items) - len(found))
    return [
        [bytes(item.contents).hex(), span(item, "visibilityTimeout"), option]
        for item, option in zip(items, found, strict=True)
    ]


def add(params):
    request = params.req
    if len(request.items) > 1_000:
        return "items"
    return [new_items(request.items, request.options), bytes(request.requestId).hex()]


def remove(params):
    return [bytes(params.req.id).hex(), bytes(params.req.lease).hex()]


def poll(params):
    return poll_of(params.req)


def poll_of(request):
    wait = span(request, "timeout")
    session = bytes(request.session).hex()
    return [
        0 if session else span(request, "leaseValidity"),
        request.numItems or 1,
        wait if wait and not request.noWait else None,
        request.noWait,
        session,
    ]


def settle(params):
    request = params.req
    entries = [
        [
            bytes(each.lease).hex(),
            bytes(each.id).hex(),
            each._get("action").raw,
            each.delayMs if each.hasDelay else None,
            each.error,
        ]
        for each in request.entries
    ]
    adds = [[each.queue, new_items(each.items, each.options)] for each in request.adds]
    return [entries, adds, request.allOrNothing]


def attach(params):
    return [bytes(params.session).hex(), params.graceMs, params.more]


def poll_any(params):
    request = params.req
    return [[[each.queue, each.weight] for each in request.queues], request.strict, poll_of(request.poll)]


def redrive(params):
    request = params.req
    return [hexes(request.ids), request._get("reason").raw, min(request.limit or 1_000, 1_000), request.to]


def extend(params):
    return [bytes(params.req.lease).hex(), span(params.req, "leaseValidity")]


def queue(params):
    return params.name


def polled(results):
    response = results.resp
    items = [
        [bytes(item.contents).hex(), bytes(item.id).hex(), item.attempt, item.addedAtMs] for item in response.items
    ]
    facts = [
        [
            each.failures,
            each.losses,
            each.firstLeasedAtMs,
            each.lastError,
            headers_of(each.headers),
            [each.death._get("reason").raw, each.death.diedAtMs, each.death.queue] if each._has("death") else None,
        ]
        for each in response.facts
    ]
    return [items, bytes(response.lease).hex(), response.leaseDeadlineMs, response.session, facts]


def added(response):
    return [hexes(response.ids), list(response.duplicates)]


def settled(results):
    response = results.resp
    outcomes = [[each._get("outcome").raw, each.died, each.dueMs] for each in response.settled]
    return [outcomes, [added(each) for each in response.added], response.changed]


def attached(results):
    response = results.resp
    leases = [[bytes(each.lease).hex(), each.queue, hexes(each.ids)] for each in response.leases]
    return [leases, response.graceMs, response.silenceMs, response.more]


PARAMS = [add, remove, poll, extend, queue, settle, attach, poll_any, redrive]
RESULTS = [
    lambda results: added(results.resp),
    lambda results: results.resp.removed,
    polled,
    lambda results: results.resp.extended,
    settled,
    attached,
]


def target_of(target):
    which = str(target.which())
    if which == "importedCap":
        return target.importedCap
    promised = target.promisedAnswer
    path = [op.getPointerField for op in promised.transform if str(op.which()) == "getPointerField"]
    return [promised.questionId, path if len(promised.transform) <= 16 else None]


def call(message, reader):
    reader %= REQUEST_READERS
    content = message.params.content.as_struct(REQUESTS[reader].param_type)
    return [
        message.questionId,
        target_of(message.target),
        message.interfaceId,
        message.methodId,
        str(message.sendResultsTo.which()) == "caller",
        PARAMS[reader](content),
    ]


def capability(descriptor):
    which = str(descriptor.which())
    if which in {"senderHosted", "senderPromise"}:
        return getattr(descriptor, which)
    return descriptor.thirdPartyHosted.vineId if which == "thirdPartyHosted" else None


def reason(exception):
    return exception.reason.encode()[:REASON_BYTES_MAX].decode(errors="replace")


def returned(message, reader):
    which, said = str(message.which()), None
    if which == "results":
        payload = message.results
        table = [capability(each) for each in payload.capTable]
        reader %= RESPONSE_READERS
        said = ["results", table, RESULTS[reader](payload.content.as_struct(RESPONSES[reader].result_type))]
    elif which == "exception":
        said = ["exception", reason(message.exception), message.exception._get("type").raw]
    elif which == "canceled":
        said = ["canceled"]
    return [message.answerId, not message.noFinishNeeded, said]


def disembargo(message, _):
    if str(message.context.which()) != "senderLoopback":
        return UNKNOWN
    return [target_of(message.target), message.context.senderLoopback]


def resolve(message, _):
    cap = capability(message.cap) if str(message.which()) == "cap" else None
    return [message.promiseId, cap]


MEMBERS = {field.name: field.discriminantValue for field in RPC.Message.schema.node.struct.fields}
UNKNOWN = object()
VIEWS = {
    "unimplemented": lambda each, _: [str(each.which())],
    "abort": lambda each, _: [reason(each)],
    "bootstrap": lambda each, _: [each.questionId, each._has("deprecatedObjectId")],
    "call": call,
    "return": returned,
    "finish": lambda each, _: [each.questionId, each.releaseResultCaps],
    "release": lambda each, _: [each.id, each.referenceCount],
    "resolve": resolve,
    "disembargo": disembargo,
}


def view(data, reader):
    try:
        with RPC.Message.from_bytes(data, traversal_limit_in_words=WORDS_MAX) as message:
            which = str(message.which())
            if which == "unimplemented" and not message._has(which):
                return [which, [None]]
            said = VIEWS[which](getattr(message, which), reader) if which in VIEWS else UNKNOWN
            return [which, said] if said is not UNKNOWN else ["unknown", [MEMBERS[which]]]
    except Exception as why:  # noqa: BLE001 -- whatever it is, it is a refusal
        return ["refused", f"{type(why).__name__}: {why}"]


def main():
    stream, out = sys.stdin.buffer, sys.stdout
    while head := stream.read(HEAD.size):
        length, reader = HEAD.unpack(head)
        out.write(json.dumps(view(stream.read(length), reader)) + "\n")
        # At once: the message that ends this process must be the first without an answer.
        out.flush()


if __name__ == "__main__":
    main()
