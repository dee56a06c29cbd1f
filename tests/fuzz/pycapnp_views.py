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

HEAD = Struct("<IB")
RESPONSE_READERS = 6
"""The number of readers in `views.py`; pycapnp has the first four of them."""

WORDS_MAX = 1 << 20
REASON_BYTES_MAX = 1_000

QUEUE, BROKER = QUEUEBER.Queue.schema.methods, QUEUEBER.Broker.schema.methods
REQUESTS = [QUEUE["add"], QUEUE["remove"], QUEUE["poll"], QUEUE["extend"], BROKER["queue"]]


def span(request, field):
    ms = getattr(request, field + "Ms")
    return ms or getattr(request, field + "Secs") * 1_000


def add(params):
    items = params.req.items
    if len(items) > 1_000:
        return "items"
    return [[bytes(item.contents).hex(), span(item, "visibilityTimeout")] for item in items]


def remove(params):
    return [bytes(params.req.id).hex(), bytes(params.req.lease).hex()]


def poll(params):
    request = params.req
    wait = span(request, "timeout")
    return [
        span(request, "leaseValidity"),
        request.numItems or 1,
        wait if wait and not request.noWait else None,
        request.noWait,
    ]


def extend(params):
    return [bytes(params.req.lease).hex(), span(params.req, "leaseValidity")]


def queue(params):
    return params.name


def polled(results):
    response = results.resp
    items = [
        [bytes(item.contents).hex(), bytes(item.id).hex(), item.attempt, item.addedAtMs] for item in response.items
    ]
    return [items, bytes(response.lease).hex(), response.leaseDeadlineMs]


PARAMS = [add, remove, poll, extend, queue]
RESULTS = [
    lambda results: [bytes(each).hex() for each in results.resp.ids],
    lambda results: results.resp.removed,
    polled,
    lambda results: results.resp.extended,
]


def target_of(target):
    which = str(target.which())
    if which == "importedCap":
        return target.importedCap
    promised = target.promisedAnswer
    path = [op.getPointerField for op in promised.transform if str(op.which()) == "getPointerField"]
    return [promised.questionId, path if len(promised.transform) <= 16 else None]


def call(message, reader):
    reader %= len(PARAMS)
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
        said = ["results", table, RESULTS[reader](payload.content.as_struct(REQUESTS[reader].result_type))]
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
