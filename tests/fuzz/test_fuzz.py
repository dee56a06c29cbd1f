"""
A small slice of `run.py`, the kept corpus, and checks that the harness finds planted faults.

`make fuzz` and `guided.py` are the real thing.
"""

import importlib.util
import re
import sys
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
import target_framing
from campaign import Campaign
from conversations import replies, requests
from damage import RARELY, SPOILERS, damaged, is_whole
from differential import Found, Pycapnp, difference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapes import framed, lay, tree, unframed, vary
from shrink import frames_in, shrunk
from targets import TARGETS
from views import COMPARED, likely_reader

from queueber.api import write_extend_responses
from queueber.capnp.framing import Framer
from queueber.capnp.reader import Frame
from queueber.errors import RemoteProtocolError
from queueber.limits import Limits
from queueber.rpc import encoder
from queueber.rpc.answers import AnswerState
from queueber.rpc.caller import Caller
from queueber.rpc.decoder import decode
from queueber.rpc.exports import Exports
from queueber.server.net.protocol import RpcProtocol
from tests.support.processes import completed

HERE = Path(__file__).parent
CORPUS = sorted(file for file in (HERE / "corpus").rglob("*") if file.is_file())
SIDES = [requests, replies]
CORPUS_BYTES_MAX = 300_000
PLANTED_FRAMES_MAX = 3_000
PLANTED_SEED = 1_500
"""Soon finds each of the planted faults."""

REPEATED = settings(derandomize=True, database=None, deadline=None)
"""Settings that give equal examples in every run: others are for `make fuzz`."""


@pytest.fixture
def pycapnp():
    worker = Pycapnp()
    yield worker
    worker.close()


# The harness itself


@pytest.mark.parametrize("side", SIDES)
def test_conversations_are_sound_and_follow_from_the_dice(side):
    for seed in range(40):
        frames = side(Random(seed))
        assert frames == side(Random(seed))
        messages = [decode(frame) for frame in Framer(Limits()).feed(b"".join(frames))]
        assert len(messages) == len(frames)
        assert frames_in(b"".join(frames)) == frames
    streams = {b"".join(side(Random(seed))) for seed in range(40)}
    assert len(streams) == 40


def test_a_message_says_the_same_however_it_is_laid_out(pycapnp):
    dice, questions, expected = Random(1), [], []
    for message in requests(Random(7)) + replies(Random(7)):
        root = tree(unframed(message)[0]) if int.from_bytes(message[:4], "little") == 0 else None
        if root is not None:
            reader = likely_reader(message, dice)
            again = framed(lay(root, dice, 4))
            (said, said_again) = pycapnp.views([(message, reader), (again, reader)])
            questions.append((again, reader))
            expected.append((said, said_again))
    pycapnp.compare(questions)
    assert len(questions) > 10
    assert all(said == again for said, again in expected)
    assert {said[0] for said, _ in expected} > {"call", "return"}


def test_varied_messages_are_what_another_schema_would_write(pycapnp):
    for seed in range(60):
        dice = Random(seed)
        frames = [each for each in requests(dice) if int.from_bytes(each[:4], "little") == 0]
        varied = [framed(lay(vary(tree(unframed(each)[0]), dice, 0.5), dice, 2)) for each in frames]
        pycapnp.compare([(each, likely_reader(each, dice)) for each in varied])


@pytest.mark.parametrize(
    "spoil", sorted({*SPOILERS, *RARELY}, key=lambda spoil: spoil.__name__), ids=lambda spoil: spoil.__name__
)
def test_every_way_to_spoil_changes_something_and_follows_from_the_dice(spoil):
    changed = 0
    for seed in range(30):
        message = requests(Random(seed))[-1]
        spoilt = spoil(message, Random(seed))
        assert spoilt == spoil(message, Random(seed))
        changed += spoilt != message
    assert changed >= 10


def test_what_fails_is_cut_down():
    def check(data):
        assert b"BAD!" not in data

    frames = requests(Random(3))
    stream = b"".join([*frames, framed([b"....BAD!" * 2 + bytes(800)]), *frames])
    assert shrunk(check, stream) == b"BAD!"


def test_an_error_in_pycapnp_is_waited_for_and_it_is_started_again(pycapnp, monkeypatch):
    (message,) = [each for each in requests(Random(5))[:1] if is_whole(each)]
    expected = pycapnp.views([(message, COMPARED[0])] * 3)
    pycapnp.process.kill()
    pycapnp.process.wait()
    answers = pycapnp.views([(message, COMPARED[0])] * 4)
    assert pycapnp.ended == 1
    assert answers[1:] == expected


def test_a_difference_that_is_on_no_list_is_found(pycapnp, monkeypatch):
    message = encoder.release(7, 3)
    pycapnp.compare([(message, 0)])
    monkeypatch.setattr("differential.own", lambda *_: ["release", [7, 4]])
    with pytest.raises(Found):
        pycapnp.compare([(message, 0)])
    assert difference(message, ["refused", "no"], ["release", [7, 3]]) is None
    assert difference(message, ["release", [7, 3]], ["refused", "no"]) is None


def underpaid(frame, words):
    """Count much too little against a budget."""
    frame.budget -= words // 10_000
    if frame.budget < 0:
        raise RemoteProtocolError("spent")


def off_by_one(self, index):
    """Read the segment after the requested one."""
    segments = self.segments or [(self.start, self.end)]
    return segments[(index + 1) % len(segments)]


def lenient(frame, at, start, end):
    """Read structs wherever there seem to be some."""
    word = frame.words[at]
    body = at + 1 + (word >> 2 & 0xFF)
    return (body, body + (word >> 32 & 0xFF), body + (word >> 32 & 0xFF) + (word >> 48), 0, len(frame.words))


REFUSED = dict.fromkeys([False, True], write_extend_responses([False])[0])
"""The encoded reply of a refused extend, in place of both replies."""


PLANTED = {
    "half a number of segments is looked at": ("queueber.capnp.framing", "_BITS_32", 0xFFFF, "framing"),
    "a list is walked before it is paid for": (Frame, "spend", underpaid, "codec"),
    "far pointers lead to another segment": (Frame, "segment", off_by_one, "differential"),
    "a struct may lie outside of its segment": ("queueber.api.requests", "struct_at", lenient, "codec"),
    "an answer is not forgotten": ("queueber.rpc.answers", "_AFTER_FINISH", [None, *AnswerState], "conversation"),
    "an export is never gone": (Exports, "_forget_if_gone", lambda *_: False, "conversation"),
    "a reference is not counted": (Caller, "release", lambda *_: None, "conversation"),
    "a poll of a lost peer waits on": (RpcProtocol, "_give_up_polls", lambda _: None, "whole"),
    "the wrong answer is given": ("queueber.api.responses", "_EXTENDED", REFUSED, "whole"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name, monkeypatch):
    owner, attribute, fault, target = PLANTED[name]
    if isinstance(owner, str):
        monkeypatch.setattr(f"{owner}.{attribute}", fault)
    else:
        monkeypatch.setattr(owner, attribute, fault)
    monkeypatch.setattr("campaign.shrunk", lambda _, data: data)
    campaign = Campaign(PLANTED_SEED)
    try:
        while campaign.frames < PLANTED_FRAMES_MAX and target not in {each.target for each in campaign.findings}:
            campaign.step()
        campaign.compare(0)
    finally:
        campaign.pycapnp.close()
    assert target in {finding.target for finding in campaign.findings}


# A slice of each target


# Not parametrized: pytest-twisted cannot run a test of hypothesis's more than once.
@pytest.mark.slow
@settings(REPEATED, max_examples=60, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(sorted(TARGETS)), side=st.sampled_from(SIDES), dice=st.randoms(use_true_random=False))
def test_spoilt_conversations(name, side, dice):
    frames, _ = damaged(side(dice), dice, requests(dice))
    TARGETS[name](b"".join(frames))


@settings(REPEATED)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300)))
def test_bytes_are_framed_the_same_however_they_are_cut(stream, cuts):
    places = sorted({0, len(stream), *(min(each, len(stream)) for each in cuts)})
    pieces = [stream[first:last] for first, last in pairwise(places)]
    assert target_framing.framed_by(pieces) == target_framing.framed_by([stream])
    target_framing.check(stream)


@settings(REPEATED)
@given(st.lists(st.binary(min_size=8, max_size=8), max_size=30), st.integers(0, 3))
def test_words_are_read_or_refused(words, segments):
    content = b"".join(words)
    TARGETS["codec"](framed([content, *[content[: 8 * number] for number in range(segments)]]))


@pytest.mark.slow
def test_a_short_campaign_finds_nothing():
    campaign = Campaign(1).run(2_000)
    assert campaign.findings == []
    assert campaign.inputs.keys() == {*TARGETS, "differential"}
    assert campaign.pycapnp.counts["both say the same"] > 300


# The kept corpus


def test_the_corpus_is_small_and_there_is_some_for_each_target():
    assert sum(file.stat().st_size for file in CORPUS) < CORPUS_BYTES_MAX
    assert {file.parent.name for file in CORPUS} == TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_corpus(name):
    for file in CORPUS:
        if file.parent.name == name or name != "whole":
            TARGETS[name](file.read_bytes())


def test_the_kept_corpus_compared_with_pycapnp(pycapnp):
    dice = Random(1)
    whole = [frame for file in CORPUS for frame in frames_in(file.read_bytes()) if is_whole(frame)]
    pycapnp.compare([(frame, likely_reader(frame, dice)) for frame in whole])
    assert len(whole) > 100


# The commands


@pytest.mark.slow
def test_a_short_run_of_the_command_finds_nothing(tmp_path):
    command = [sys.executable, HERE / "run.py", "--frames", "300", "--sessions", "20", "--seed", "3"]
    done = completed(command, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^20 hostile sessions", done.stdout, flags=re.MULTILINE)
    assert re.search(r"^ +attacked( +[\d.,]+){4}$", done.stdout, flags=re.MULTILINE)
    assert "\n0 findings\n" in done.stdout


@pytest.mark.slow
def test_a_finding_is_written_down_and_ends_the_command_with_1(tmp_path):
    faulty = (
        "import sys; sys.argv[1:] = ['--frames', '300', '--sessions', '0', '--seed', '3']\n"
        "from queueber.capnp.reader import Frame; Frame.spend = lambda *_: 1 / 0\n"
        "import run; sys.exit(run.main())"
    )
    done = completed([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(HERE)!r})\n{faulty}"], cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "ZeroDivisionError" in done.stdout
    files = list((tmp_path / "fuzz-findings").iterdir())
    assert files
    assert max(file.stat().st_size for file in files) < 800


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs atheris: pip install '.[fuzz]'")
@pytest.mark.parametrize("name", TARGETS)
def test_guided_fuzzing_runs(name, tmp_path):
    command = [sys.executable, HERE / "guided.py", name, "-runs=200", tmp_path]
    done = completed(command, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Done 200 runs" in done.stderr


def test_what_was_not_changed_is_not_counted_as_spoilt(monkeypatch):
    for module in ("campaign", "damage"):
        monkeypatch.setattr(f"{module}.spoilt", lambda message, _: message)
    campaign = Campaign(1)
    campaign.step()
    campaign.pycapnp.close()
    assert (campaign.conversations, campaign.frames) == (1, 0)
    assert campaign.inputs["codec"] == 0
