"""Runs many damaged conversations through all targets, from one seed."""

from collections import Counter
from random import Random
from time import perf_counter

from attrs import define, field
from conversations import replies, requests
from damage import damaged, is_whole, spoilt
from differential import Found, Pycapnp
from shrink import shrunk, signature
from targets import TARGETS
from views import likely_reader

EXTRA = 6
"""Messages damaged by themselves for each conversation, for the targets that take one message at a time."""

COMPARED_AT_ONCE = 400


@define
class Finding:
    """A finding."""

    target: str
    seed: int
    data: bytes
    what: str


@define
class Campaign:
    """The counts so far."""

    first_seed: int
    frames: int = 0
    """Damaged messages that went through a target."""

    conversations: int = 0
    seconds: Counter = field(factory=Counter)
    """The time of each target."""

    inputs: Counter = field(factory=Counter)
    findings: list = field(factory=list)
    pycapnp: Pycapnp = field(factory=Pycapnp)
    _questions: list = field(factory=list)
    _known: set = field(factory=set)

    def step(self):
        """Damage one conversation and run it through the targets."""
        seed = self.first_seed + self.conversations
        dice = Random(seed)
        side = requests if dice.random() < 0.6 else replies
        sound = side(dice)
        frames, bad = damaged(sound, dice, requests(dice))
        bad += [spoilt(dice.choice(sound), dice) for _ in range(EXTRA)]
        # Some ways to spoil a message leave it as it was now and then: that is none.
        known = set(sound)
        bad = [message for message in bad if message not in known]
        stream = b"".join(frames)
        self.conversations += 1
        self.frames += len(bad)
        self.check("framing", stream, seed)
        self.check("conversation", stream, seed)
        if side is requests:
            self.check("whole", stream, seed)
        for message in bad:
            self.check("codec", message, seed)
        compared = [message for message in [*bad, sound[-1]] if is_whole(message)]
        self._questions += [(message, likely_reader(message, dice)) for message in compared]
        if len(self._questions) > COMPARED_AT_ONCE:
            self.compare(seed)

    def check(self, target, data, seed):
        """Give *data* to a target, and keep its finding."""
        began = perf_counter()
        wrong = signature(TARGETS[target], data)
        self.seconds[target] += perf_counter() - began
        self.inputs[target] += 1
        if wrong and (target, wrong) not in self._known:
            self._known.add((target, wrong))
            self.findings.append(Finding(target, seed, shrunk(TARGETS[target], data), str(wrong)))

    def compare(self, seed):
        """Compare the collected messages with pycapnp."""
        questions, self._questions = self._questions, []
        began = perf_counter()
        self.inputs["differential"] += len(questions)
        try:
            self.pycapnp.compare(questions)
        except Found as why:
            self.findings.append(Finding("differential", seed, b"", str(why)))
        self.seconds["differential"] += perf_counter() - began

    def run(self, frames, progress=lambda _: None):
        """Go on until this number of messages has been damaged."""
        while self.frames < frames:
            self.step()
            progress(self)
        self.compare(self.first_seed + self.conversations)
        self.pycapnp.close()
        return self
