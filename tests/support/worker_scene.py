"""The rules of a worker with a clock that tests move, and the actions that they asked for: `Scene`."""

from queueber.values import Action, Outcome, Settled
from queueber.worker.actions import (
    Beat,
    Cancel,
    CancelPoll,
    End,
    Extend,
    GiveBack,
    Log,
    Poll,
    PollAnswer,
    ReportStall,
    Settle,
    Start,
)
from queueber.worker.policy import TICK_SECONDS, Policy
from queueber.worker.rules import WorkerRules
from queueber.worker.verdicts import REMOVE

DONE = Settled(Outcome.DONE)
SPAN = 30.0


class Scene:
    """Calls the rules as their keeper does, and sorts their actions."""

    def __init__(self, *, session=True, **policy):
        self.now = 1_000.0
        self.session = session
        self.rules = WorkerRules(Policy(**{"concurrency": 2, "prefetch": 2, **policy}), self.now, lambda: 0.0)
        self.rules.covered(self.now + 1e9)
        self.poll = None
        self.polls, self.cancelled_polls = [], []
        self.running, self.cancels, self.lost = {}, [], []
        self.settles, self.extends, self.gave_back = {}, [], []
        self.logs, self.beats, self.stalls, self.ended = [], 0, [], []
        self.made = 0
        self.begins = True
        self.act()

    def act(self):  # noqa: C901, PLR0912  (one case for each action)
        for action in self.rules.actions(self.now):
            match action:
                case Poll():
                    assert self.poll is None
                    self.poll = action
                    self.polls.append(action.n)
                case CancelPoll(number):
                    assert self.poll.number == number
                    self.poll = None
                    self.cancelled_polls.append(number)
                case Start(items):
                    for taken in items:
                        self.running[taken.item] = taken
                        if self.begins:
                            taken.begin(self.now)
                case Cancel(taken, _, lost):
                    (self.lost if lost else self.cancels).append(taken.item)
                case Settle(number):
                    self.settles[number] = action
                case Extend():
                    self.extends.append(action)
                case GiveBack():
                    self.gave_back.append(action)
                case Log(_, text):
                    self.logs.append(text)
                case Beat():
                    self.beats += 1
                case ReportStall(seconds):
                    self.stalls.append(seconds)
                case End(error):
                    self.ended.append(error)

    def deliver(self, *names, number=None, lease=None, sent=None):
        """Answer the poll with an item for each name; its contents and its id are the name."""
        if number is None:
            number, self.poll = self.poll.number, None
        self.made += 1
        lease = lease or f"lease {self.made}".encode()
        items = [(name.encode(), name) for name in names]
        sent = self.now if sent is None else sent
        self.rules.delivered(number, PollAnswer(lease, None, self.session, items, sent) if names else None, self.now)
        self.act()
        return lease

    def finish(self, *names, verdict=REMOVE):
        for name in names:
            self.rules.done(self.running.pop(name), verdict, self.now)
        self.act()

    def advance(self, seconds):
        """Move the clock in ticks."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(self.now + TICK_SECONDS, until)
            self.rules.tick(self.now)
            self.act()

    def take_settles(self):
        """Return the entries of all calls so far as (name, action), and answer none."""
        return [(each.id.decode(), each.action) for settle in self.settles.values() for each in settle.entries]

    def answer_settles(self, answer=None):
        """Answer all settles under way as done, or the first with *answer*."""
        for number in list(self.settles)[: None if answer is None else 1]:
            settle = self.settles.pop(number)
            self.rules.settled(number, answer or [DONE] * len(settle.entries), self.now)
        self.act()

    def settled(self):
        """Answer all settles; return what they said, as (name, action)."""
        found = []
        while self.settles:
            found += self.take_settles()
            self.answer_settles()
        return found

    def stop(self, grace=10.0):
        self.rules.stop(grace, self.now)
        self.act()


__all__ = ["DONE", "SPAN", "Action", "Scene"]
