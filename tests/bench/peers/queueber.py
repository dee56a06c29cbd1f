"""
Queueber, and pycapnp's own RPC server with the same interface: raw frames, encoded beforehand.

The client must cost less than any server it measures, so it knows the few bytes of a
Return it needs by their place, learns where a poll's reply has its ids from the
first reply of each length, and reads every so many replies with the real
readers to see that it was not fooled.
"""

import sys
from collections import deque
from itertools import cycle
from pathlib import Path
from struct import Struct
from time import perf_counter

from load_connection import LoadConnection, RanDry, Unexpected
from scenarios import MIXED

from peers.peer import HERE, ROOT, Peer
from queueber.api import (
    ADD,
    POLL,
    QUEUE_INTERFACE_ID,
    REMOVE,
    AddRequest,
    NewItem,
    PollRequest,
    RemoveRequest,
    read_add_response,
    read_bootstrap,
    read_poll_response,
    read_remove_response,
    write_add_request,
    write_poll_request,
    write_remove_request,
)
from queueber.capnp.framing import Framer
from queueber.capnp.reader import WORD
from queueber.limits import Limits
from queueber.rpc import PromisedAnswer, Results
from queueber.rpc import encoder as wire
from queueber.rpc.decoder import decode
from queueber.rpc.messages import Return
from queueber.units import SpanMs

sys.path.insert(0, str(ROOT / "tests" / "support"))
from calls import foreign_call

LIMITS = Limits()
LEASE = SpanMs(600_000)
SAMPLE = 128
"""One reply in so many is read in full."""

TAKEN_AT_ONCE = 1_000
"""Items in each poll of a connection that is only to remove."""

# Segments less one, words; root pointer; discriminant of Message; pointer to Return; answer, flags and discriminant of
# the Return.
HEAD = Struct("<IIQH6xQIBxH")
BODY = HEAD.size
QUESTION = 32
"""Byte of a call's question, in all layouts."""

ROOT_POINTER = 1 << 32 | 1 << 48
RETURN_POINTER = 2 << 32 | 1 << 48
RETURN = 3
NO_FINISH_NEEDED = 2


def results_of(frame):
    """The results in the Return *frame*, by the real reader."""
    message = decode(next(Framer(LIMITS).feed(frame)))
    if type(message) is not Return or type(message.outcome) is not Results:
        raise Unexpected(f"{message}")
    return message.outcome


def own_call(question, target, method, content):
    """Encode a call as Queueber's client does: its target lies before the parameters."""
    return wire.call(question, target, QUEUE_INTERFACE_ID, method, content) + content


def stock_call(question, target, method, content):
    """Encode a call as the clients in C++ and Rust and pycapnp do: its target lies after the parameters."""
    return foreign_call(question, method, content, target=target)


def encoder_of(load):
    """Return the function that encodes the calls of *load*."""
    return own_call if load.own else stock_call


class Adds:
    """Adds of the same items, over and over."""

    def __init__(self, target, load, window):
        delay = SpanMs(load.delay_ms)
        contents = [write_add_request(AddRequest([NewItem(each, delay) for each in batch])) for batch in load.batches]
        # All slots share the contents; each has a head of its own, which holds its question.
        parts = [(encoder_of(load)(0, target, ADD, each).split(each[WORD:]), each[WORD:]) for each in contents]
        self.calls = [
            cycle([(asked(before, slot), shared, after) for (before, after), shared in parts]) for slot in range(window)
        ]
        for slot, each in enumerate(self.calls):
            for _ in range(slot):
                next(each)
        self.items = load.items
        self.seen = 0
        self.size = 0

    def next(self, slot):
        return b"".join(next(self.calls[slot]))

    def returned(self, slot, data, at, size):
        """Return the number of items that the Return from *at* on completes."""
        self.seen += 1
        if size != self.size or not self.seen % SAMPLE:
            ids = read_add_response(results_of(data[at : at + size])).ids
            if len({bytes(each) for each in ids}) != self.items or any(len(each) != 16 for each in ids):
                raise Unexpected(f"an add of {self.items} items gave the ids {ids}")
            self.size = size
        return self.items


def asked(frame, question):
    """Return *frame*, a call or the beginning of one, with another *question*."""
    return frame[:QUESTION] + question.to_bytes(4, "little") + frame[QUESTION + 4 :]


PLACES = {}
"""Where polls' replies of each size have their ids and their lease.  A process has one load."""


class Takes:
    """Polls that do not wait, and a remove for every item they bring; removes go first."""

    def __init__(self, target, load, window, dry_ends):
        poll = write_poll_request(PollRequest(lease=LEASE, num_items=load.items, wait=None, no_wait=True))
        self.added = load.added
        self.unlike = load.size == MIXED and load.items > 1
        """Replies of equal size may have their ids in different places."""

        self.dry_ends = dry_ends
        call = encoder_of(load)
        self.polls = [call(slot, target, POLL, poll) for slot in range(window)]
        mark_id, mark_lease = b"I" * 16, b"L" * 16
        remove = write_remove_request(RemoveRequest(mark_id, mark_lease))
        self.removes = [call(slot, target, REMOVE, remove) for slot in range(window)]
        first, second = sorted((self.removes[0].index(mark_id), self.removes[0].index(mark_lease)))
        self.id_first = first == self.removes[0].index(mark_id)
        self.cut = Struct(f"{first}s16s{second - first - 16}s16s{len(self.removes[0]) - second - 16}s")
        self.parts = [self.cut.unpack(each) for each in self.removes]
        self.removing = [False] * window
        self.found = deque()
        self.removed = b""
        self.seen = 0

    def next(self, slot):
        if not self.found:
            self.removing[slot] = False
            return self.polls[slot]
        self.removing[slot] = True
        number, lease = self.found.popleft()
        first, second = (number, lease) if self.id_first else (lease, number)
        before, _, between, _, after = self.parts[slot]
        return self.cut.pack(before, first, between, second, after)

    def returned(self, slot, data, at, size):
        """Return the number of items that the Return from *at* on completes."""
        if self.removing[slot]:
            # All Returns of the same result are the same but for the answer's number.
            if data[at + BODY : at + size] != self.removed:
                if not read_remove_response(results_of(data[at : at + size])):
                    raise Unexpected("a remove under a live lease was refused")
                self.removed = data[at + BODY : at + size]
            return 1
        self.seen += 1
        places = None if self.unlike else PLACES.get(size)
        if places is None or not self.seen % SAMPLE:
            places = self.learn(data[at : at + size], places)
            if places is None:
                return 0
            PLACES[size] = places
        ids, lease = places
        secret = data[at + lease : at + lease + 16]
        self.found += [(data[at + each : at + each + 16], secret) for each in ids]
        return 0

    def learn(self, frame, known):
        """Where a poll's reply has its ids and its lease, which must be where they are *known* to be; None if empty."""
        response = read_poll_response(results_of(frame))
        if not response.items:
            if self.dry_ends:
                raise RanDry
            return None
        if not all(self.added(bytes(item.contents)) for item in response.items):
            raise Unexpected(
                f"a poll returned contents that were not added, the first {len(response.items[0].contents)} bytes long"
            )
        if known:
            ids, lease = known
            if [frame[each : each + 16] for each in ids] != [item.id for item in response.items]:
                raise Unexpected("two replies of the same length have their ids in different places")
            if frame[lease : lease + 16] != response.lease:
                raise Unexpected("two replies of the same length have their leases in different places")
            return known
        if any(frame.count(each) != 1 for each in (response.lease, *(item.id for item in response.items))):
            raise Unexpected(f"ids and leases cannot be distinguished in {response}")
        return [frame.index(item.id) for item in response.items], frame.index(response.lease)


class Frames(LoadConnection):
    """Calls in slots, each with its own question; the answers come in any order."""

    def __init__(self, port, role, load):
        super().__init__(port, role, load)
        self.frame = b""
        self.target = target = self.bootstrap(self.window)
        if role == "add":
            self.work = Adds(target, load, self.window)
        else:
            self.work = Takes(target, load, self.window, self.dry_ends)
        if role == "remove":
            self.take_all(target, load.preload // load.connections)
        self.finish = [wire.finish(slot, release_result_caps=False) for slot in range(self.window)]
        self.sent = [0.0] * self.window
        self.idle = list(range(self.window))

    def bootstrap(self, question):
        """The import to call, after a first call that is pipelined on the bootstrap as stock clients do it."""
        nothing = write_add_request(AddRequest([]))
        first = wire.pipelined_call(question + 1, PromisedAnswer(question), QUEUE_INTERFACE_ID, ADD, nothing)
        returned = self.answered(wire.bootstrap(question) + first, 2)
        self.socket.sendall(b"".join([wire.finish(each, release_result_caps=False) for each in returned]))
        return read_bootstrap(returned[question])

    def answered(self, calls, count):
        """The results of *count* *calls* by their questions: what comes before a load."""
        self.socket.sendall(calls)
        framer, returned = Framer(LIMITS), {}
        while len(returned) < count:
            for frame in framer.feed(self.received()):
                message = decode(frame)
                if type(message) is not Return or type(message.outcome) is not Results:
                    raise Unexpected(f"{message}")
                returned[message.answer] = message.outcome
        return returned

    def take_all(self, target, count):
        """Have *count* items under leases; what is then called are removes until there are none."""
        poll = write_poll_request(PollRequest(lease=LEASE, num_items=TAKEN_AT_ONCE, wait=None, no_wait=True))
        while len(self.work.found) < count:
            results = self.answered(own_call(self.window, target, POLL, poll), 1)[self.window]
            self.socket.sendall(wire.finish(self.window, release_result_caps=False))
            response = read_poll_response(results)
            if not response.items:
                break
            self.work.found += [(bytes(item.id), bytes(response.lease)) for item in response.items]
        self.work.polls = [None] * self.window

    def begin(self):
        self.send(self.idle, [])
        self.idle = []

    def send(self, slots, out):
        """Send *out* and a call in each of *slots*."""
        calls = [self.work.next(slot) for slot in slots]
        if None in calls:
            raise RanDry
        out += calls
        self.in_flight += len(calls)
        if out:
            now = perf_counter()
            for slot in slots:
                self.sent[slot] = now
            self.socket.sendall(b"".join(out))

    def turn(self, more):
        data = self.received()
        now = perf_counter()
        at, end = 0, len(data)
        out, slots = [], []
        work = self.work
        while at + BODY <= end:
            segments, words, root, which, pointer, slot, flags, outcome = HEAD.unpack_from(data, at)
            if segments:
                # Long replies of pycapnp's: the same, after a longer table.
                table = 4 * (segments + 2) + 7 & -8
                if at + table + BODY > end:
                    break
                sizes = Struct(f"<{segments + 1}I").unpack_from(data, at + 4)
                _, _, root, which, pointer, slot, flags, outcome = HEAD.unpack_from(data, at + table - 8)
                size = table + 8 * sum(sizes)
            else:
                size = 8 + words * 8
            if at + size > end:
                break
            if root != ROOT_POINTER or pointer != RETURN_POINTER or which != RETURN or outcome:
                raise Unexpected(f"no plain Return: {results_of(data[at : at + size])}")
            self.latencies.append(now - self.sent[slot])
            self.items += work.returned(slot, data, at, size)
            if not flags & NO_FINISH_NEEDED:
                out.append(self.finish[slot])
            slots.append(slot)
            at += size
        self.rest = data[at:]
        self.in_flight -= len(slots)
        if not more:
            self.idle += slots
            slots = []
        self.send(slots, out)


class Queueber(Peer):
    """Queueber as it comes."""

    name = durability = "fsync"
    says = "fsync before the answer, one for all calls that arrived during the previous one"
    connection_class = Frames
    kinds = ("add", "take", "cycle", "remove")
    mixed = True

    def command(self, port, directory):
        listen = ["--listen", f"127.0.0.1:{port}", "--data-dir", str(directory / "data")]
        return [self.found(), "-m", "twisted", "queueber", *listen, "--durability", self.durability]


BASELINE_COMMIT = "e50bb73"
"""Before calls of mixed length were made fast."""


class Baseline(Queueber):
    """Queueber as it was at another commit, in an environment of its own."""

    name = "baseline"
    commit = BASELINE_COMMIT
    """May be set before a measurement begins."""

    @property
    def says(self):
        return f"as fsync, by the server of commit {self.commit}"

    @property
    def folder_of_environment(self):
        """The directory that ``make baseline BASELINE_COMMIT=...`` makes."""
        return ROOT / f".bench-baseline{'' if self.commit == BASELINE_COMMIT else f'-{self.commit}'}"

    @property
    def program(self):
        return str(self.folder_of_environment / ".venv/bin/python")

    def found(self):
        return self.program if Path(self.program).exists() else None

    def folder(self, directory):
        """Away from the package of this checkout, which Python would import from there."""
        return directory


class System(Queueber):
    """Written, and left to the operating system."""

    name = durability = "os"
    says = "written before the answer; a power cut loses the last"


class Nothing(Queueber):
    """Without a log: the upper bound."""

    name = durability = "none"
    says = "none: for measuring what all but the log costs"


class Pycapnp(Peer):
    """A queue with this interface on pycapnp's own RPC server, in memory: the protocol's baseline."""

    name = "pycapnp"
    says = "none: in memory"
    connection_class = Frames
    kinds = ("add", "take", "cycle", "remove")
    mixed = True

    def command(self, port, directory):
        return [sys.executable, str(HERE.parent / "baseline.py"), str(port)]
