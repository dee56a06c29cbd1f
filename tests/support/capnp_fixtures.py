"""Fixtures for the encoding and the RPC layer: limits, two connections joined, pycapnp in a process of its own."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from struct import pack

import pytest
from attrs import define, field

from queueber.api import read_bootstrap
from queueber.capnp.framing import Framer
from queueber.limits import Limits
from queueber.rpc import Aborted, Calls, Connection, ImportedCap


@pytest.fixture
def limits():
    return Limits()


@pytest.fixture(scope="session")
def stream_of():
    """The message of some segments, as the standard says."""

    def stream(segments):
        table = pack(f"<I{len(segments)}I", len(segments) - 1, *[len(segment) // 8 for segment in segments])
        return table + bytes(-len(table) % 8) + b"".join(segments)

    return stream


@pytest.fixture(scope="session")
def frames_of():
    """The frames in a stream."""

    def frames(stream, limits=None):
        return list(Framer(limits or Limits()).feed(stream))

    return frames


@pytest.fixture(scope="session")
def frame_of(frames_of):
    """The one frame in a stream."""

    def frame(stream):
        (only,) = frames_of(stream)
        return only

    return frame


class Thing:
    """An object to export."""

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return self.name


@pytest.fixture
def thing():
    return Thing


@define
class Pair:
    """
    A client's and a server's end, joined by what a test passes from one to the other.

    Both check themselves after every step.
    """

    client: Connection
    server: Connection
    root: object
    hits: Counter
    events: list = field(factory=list)

    def to_server(self):
        """Pass on what the client said; the server's events."""
        return self._pass(self.client, self.server)

    def to_client(self):
        """Pass on what the server said; the client's events."""
        return self._pass(self.server, self.client)

    def _pass(self, sender, receiver):
        events = []
        for event in receiver.receive_data(sender.data_to_send()):
            receiver.check()
            events.append(event)
        sender.check()
        if not any(isinstance(event, Aborted) for event in events):
            receiver.check()
        return events

    def called(self):
        """Pass on what the client said, which is one call."""
        (event,) = self.to_server()
        assert isinstance(event, Calls)
        return event

    def returned(self):
        """Pass on what the server said, which is one answer; its outcome."""
        (event,) = self.to_client()
        return event.outcome

    def bootstrap(self):
        """The root object, as the client holds it after a round trip."""
        question = self.client.bootstrap()
        assert self.to_server() == []
        found = read_bootstrap(self.returned())
        self.client.finish(question, release_result_caps=False)
        assert self.to_server() == []
        return ImportedCap(found)

    def check_finished(self):
        """Nothing is left in any table."""
        for end in (self.client, self.server):
            stats = end.stats()
            assert (stats.answers, stats.exports, stats.questions, stats.imports) == (0, 0, 0, 0), end.dump()
            assert end.data_to_send() == b""


@pytest.fixture
def pair():
    return make_pair()


@pytest.fixture(scope="session")
def pair_with():
    """A pair whose server has the given limits."""
    return make_pair


def make_pair(**limits):
    root = Thing("root")
    hits = Counter()
    server = Connection(limits=Limits(**limits), bootstrap=root, limit_hits=hits)
    return Pair(Connection(limits=Limits()), server, root, hits)


class Pycapnp:
    """pycapnp, in a process of its own because a bad pointer may end it."""

    def __init__(self):
        script = Path(__file__).with_name("pycapnp_worker.py")
        self._process = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _ask(self, **question):
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"pycapnp ended over {question}"
        found = json.loads(answer)
        assert "error" not in found, found["error"]
        return found["ok"]

    def read(self, struct, segments):
        """The fields of the struct that these segments hold."""
        return self._ask(do="read", struct=struct, segments=[segment.hex() for segment in segments])

    def build(self, struct, value, *, segment_words=1 << 16):
        """The segments that hold such a struct: several, unless all fits into one of *segment_words*."""
        segments = self._ask(do="build", struct=struct, value=value, segment_words=segment_words)
        return [bytes.fromhex(segment) for segment in segments]

    def pack(self, struct, value):
        """A message, its frame header included: plain and packed."""
        plain, packed = self._ask(do="pack", struct=struct, value=value)
        return bytes.fromhex(plain), bytes.fromhex(packed)

    def unpack(self, struct, packed):
        """The fields of the struct in a packed message."""
        return self._ask(do="unpack", struct=struct, packed=packed.hex())

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(timeout=120) == 0


@pytest.fixture(scope="session")
def pycapnp():
    worker = Pycapnp()
    yield worker
    worker.close()
