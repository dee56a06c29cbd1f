"""
Valid random conversations, as lists of framed messages.

*dice* is a `random.Random` or an object with its methods: seeded here, made by
hypothesis there.  Ids and leases are `placeholder`s, which a driver of a real
server replaces with those that it received.
"""

import operations
from shapes import framed, lay, tree, vary

from queueber.api import (
    ADD,
    BROKER_INTERFACE_ID,
    CONTROL,
    EXTEND,
    LIMITS,
    POLL,
    QUEUE,
    QUEUE_INTERFACE_ID,
    QUEUE_RESPONSE,
    REMOVE,
    AddRequest,
    AddResponse,
    ExtendRequest,
    NewItem,
    PollAnyResponse,
    PolledItem,
    PollRequest,
    PollResponse,
    RemoveRequest,
    write_add_request,
    write_add_response,
    write_add_responses,
    write_extend_request,
    write_extend_responses,
    write_limits_request,
    write_poll_any_response,
    write_poll_request,
    write_poll_responses,
    write_queue_request,
    write_remove_request,
    write_remove_responses,
)
from queueber.api.control_types import CONTROL_INTERFACE_ID
from queueber.capnp import layout
from queueber.capnp.builder import Body
from queueber.errors import Kind
from queueber.units import SpanMs, WallMs

ID_BYTES = 16
PLACEHOLDERS = 8
CLIENT_QUESTIONS = 12
"""The questions of the client that `replies` answer: a bootstrap, then calls."""

SPANS = [0, 1, 10, 1_000, 60_000, 3_600_000, 7 * 86_400_000, 10**12, (1 << 64) - 1]


def placeholder(kind, number):
    """Return 16 bytes that stand for the *number*th lease or item alive."""
    return f"@{kind}-{number}@".encode().ljust(ID_BYTES, b"~")


def identifier(dice, kind):
    if dice.random() < 0.8:
        return placeholder(kind, dice.randrange(PLACEHOLDERS))
    return dice.randbytes(dice.choice([0, 1, 15, 16, 16, 17, 300]))


def span(dice):
    return SpanMs(dice.choice(SPANS[:6] if dice.random() < 0.9 else SPANS))


def contents(dice):
    return dice.randbytes(dice.choice([0, 1, 7, 8, 9, 20, 40, 64] if dice.random() < 0.97 else [300, 5_000]))


def new_item(dice):
    return NewItem(
        contents(dice),
        SpanMs(dice.choice([0, 0, 0, 5, 50_000])),
        operations.options(dice) if dice.random() < 0.1 else None,
    )


def add_request(dice):
    number = dice.choice([b"r" * ID_BYTES, dice.randbytes(ID_BYTES), b"?"]) if dice.random() < 0.1 else b""
    items = [new_item(dice) for _ in range(dice.choice([0, 1, 1, 2, 3, 8]))]
    return ADD, write_add_request(AddRequest(items, number))


def poll(dice):
    wait = dice.choice([None, None, 0, 20, 5_000])
    session = dice.choice([b"s" * ID_BYTES, b"?"]) if dice.random() < 0.1 else b""
    wanted = dice.choice([0, 1, 1, 3, 8, 1 << 31])
    return PollRequest(span(dice), wanted, wait, no_wait=dice.random() < 0.5, session=session)


def poll_request(dice):
    return POLL, write_poll_request(poll(dice))


def remove_request(dice):
    return REMOVE, write_remove_request(RemoveRequest(identifier(dice, "item"), identifier(dice, "lease")))


def extend_request(dice):
    return EXTEND, write_extend_request(ExtendRequest(identifier(dice, "lease"), span(dice)))


OPERATIONS = operations.Operations(identifier, new_item, poll)
QUEUE_REQUESTS = [
    *(add_request, add_request, poll_request, poll_request, remove_request, extend_request),
    OPERATIONS.settle,
    OPERATIONS.settle,
]


def body_of(content):
    """Return the struct that is a segment of its own, as something to point to."""
    return Body(int.from_bytes(content[:8], "little"), [content[8:]], len(content) // 8 - 1)


def message(dice, member, fields):
    """Return one framed message, in one of the possible layouts."""
    segment = layout("Message").build(**{member: fields})
    if dice.random() < 0.7:
        return framed([segment])
    root = tree(segment)
    if dice.random() < 0.5:
        root = vary(root, dice)
    return framed(lay(root, dice, dice.choice([1, 2, 3, 6])))


class Client:
    """The messages of one client, which numbers its questions as real ones do and knows its capabilities."""

    def __init__(self, dice):
        self.dice = dice
        self.said = []
        self.next = 0
        self.open = []
        self.targets = []
        self.controls = []
        self.exported = 0

    def say(self, member, fields):
        self.said.append(message(self.dice, member, fields))

    def question(self):
        self.next += 1
        self.open.append(self.next - 1)
        return self.next - 1

    def bootstrap(self):
        question = self.question()
        self.say("bootstrap", {"questionId": question})
        self.targets.append({"promisedAnswer": {"questionId": question}})
        self.targets.append({"importedCap": 0})
        self.exported = max(self.exported, 1)

    def call(self):
        dice = self.dice
        method, content = dice.choice(QUEUE_REQUESTS)(dice)
        self._call(self.question(), dice.choice(self.targets), QUEUE_INTERFACE_ID, method, content)

    def queue(self):
        question, name = self.question(), self.dice.choice(["mail", "jobs", "default", "", "ü" * 120, "x" * 256])
        self._call(question, self.targets[0], BROKER_INTERFACE_ID, QUEUE, write_queue_request(name))
        promised = {"questionId": question, "transform": [{"noop": None}, {"getPointerField": 0}]}
        self.targets.append({"promisedAnswer": promised})
        if 0 < len(name.encode()) < 256:
            self.targets.append({"importedCap": self.exported})
            self.exported += 1

    def opened(self, interface, method, content):
        """Ask for an object, and call it from now on."""
        question = self.question()
        self._call(question, self.targets[0], interface, method, content)
        promised = {"questionId": question, "transform": [{"noop": None}, {"getPointerField": 0}]}
        return {"promisedAnswer": promised}

    def dead_letters(self):
        self.targets.append(self.opened(QUEUE_INTERFACE_ID, *OPERATIONS.dead_letters(self.dice)))

    def control(self):
        content = write_queue_request(self.dice.choice(["mail", "jobs"]))
        self.controls.append(self.opened(BROKER_INTERFACE_ID, CONTROL, content))
        for _ in range(self.dice.randrange(4)):
            call = OPERATIONS.of_control(self.dice)
            self._call(self.question(), self.dice.choice(self.controls), CONTROL_INTERFACE_ID, *call)

    def of_root(self):
        self._call(self.question(), self.targets[0], BROKER_INTERFACE_ID, *OPERATIONS.of_root(self.dice))

    def limits(self):
        self._call(self.question(), self.dice.choice(self.targets), BROKER_INTERFACE_ID, LIMITS, write_limits_request())

    def _call(self, question, target, interface, method, content):
        to = {"caller": None} if self.dice.random() < 0.97 else {"yourself": None}
        params = {"content": body_of(content), "capTable": self._capabilities()}
        self.say(
            "call",
            {
                "questionId": question,
                "target": target,
                "interfaceId": interface,
                "methodId": method,
                "params": params,
                "sendResultsTo": to,
            },
        )

    def _capabilities(self):
        return [{"senderHosted": 3}, {"none": None}] if self.dice.random() < 0.05 else []

    def finish(self):
        if self.open:
            question = self.open.pop(self.dice.randrange(len(self.open)))
            self.say("finish", {"questionId": question, "releaseResultCaps": self.dice.random() < 0.5})

    def release(self):
        self.say("release", {"id": self.dice.randrange(max(1, self.exported)), "referenceCount": 1})

    def disembargo(self):
        context = {"senderLoopback": self.dice.getrandbits(16)}
        self.say("disembargo", {"target": self.dice.choice(self.targets), "context": context})

    def aside(self):
        self.say(*self.dice.choice(ASIDES))


ASIDES = [
    ("unimplemented", {"release": {"id": 1}}),
    ("unimplemented", {"disembargo": {"target": {"importedCap": 0}}}),
    ("resolve", {"promiseId": 1, "cap": {"senderHosted": 2}}),
    ("join", {"questionId": 4_000, "target": {"importedCap": 0}}),
    ("provide", {"questionId": 4_001, "target": {"importedCap": 0}}),
    ("accept", {"questionId": 4_002}),
    ("disembargo", {"target": {"importedCap": 0}, "context": {"accept": None}}),
]


def requests(dice):
    """Return the messages of a valid client in one connection."""
    client = Client(dice)
    client.bootstrap()
    often = [client.call] * 10 + [client.queue] * 2 + [client.finish] * 4
    often += [client.control, client.of_root, client.dead_letters]
    seldom = [client.limits, client.release, client.disembargo, client.aside, client.bootstrap]
    for _ in range(dice.randrange(1, 16)):
        dice.choice(often if dice.random() < 0.92 else seldom)()
    if dice.random() < 0.1:
        client.say("abort", {"reason": "gone", "type": Kind.FAILED})
    return client.said


def _results(dice):
    def items():
        return [PolledItem(contents(dice), dice.randbytes(16), 1, WallMs(5)) for _ in range(dice.randrange(4))]

    def polled():
        facts = tuple(operations.some(dice, lambda: operations.facts(dice))) if dice.random() < 0.3 else ()
        return PollResponse(items(), dice.randbytes(ID_BYTES), WallMs(9), dice.random() < 0.2, facts)

    return dice.choice(
        [
            lambda: write_add_responses([[dice.randbytes(ID_BYTES) for _ in range(dice.randrange(5))]])[0],
            lambda: write_remove_responses([dice.random() < 0.5])[0],
            lambda: write_poll_responses([polled()])[0],
            lambda: write_poll_any_response(PollAnyResponse("mail", polled())),
            lambda: write_add_response(AddResponse([dice.randbytes(ID_BYTES)] * 3, (0, 2))),
            lambda: operations.results(dice),
            lambda: operations.results(dice),
            lambda: write_extend_responses([dice.random() < 0.5])[0],
            lambda: QUEUE_RESPONSE,
        ]
    )()


def _outcome(dice, question):
    roll = dice.random()
    if roll < 0.1:
        return {"exception": {"reason": "no" * dice.randrange(9), "type": dice.randrange(4)}}
    if roll < 0.15:
        return {"canceled": None}
    content = (3).to_bytes(8, "little") if question == 0 else _results(dice)
    kinds = [{"senderHosted": dice.randrange(6)}, {"senderPromise": 7}, {"none": None}]
    kinds.append({"thirdPartyHosted": {"vineId": 5}})
    table = [dice.choice(kinds[:1] if dice.random() < 0.8 else kinds) for _ in range(dice.randrange(3))]
    if question == 0 or content == QUEUE_RESPONSE:
        table = table or kinds[:1]
    return {"results": {"content": body_of(content), "capTable": table}}


def replies(dice):
    """Return the messages of a valid server to a client that has asked `CLIENT_QUESTIONS` questions."""
    said, asked = [], list(range(CLIENT_QUESTIONS))
    while asked:
        question = asked.pop(0 if dice.random() < 0.6 else dice.randrange(len(asked)))
        fields = {"answerId": question, "noFinishNeeded": dice.random() < 0.1, **_outcome(dice, question)}
        said.append(message(dice, "return", fields))
        if dice.random() < 0.1:
            said.append(message(dice, *dice.choice(ASIDES)))
    return said
