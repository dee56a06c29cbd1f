"""Whether so much happened that a history without a fault in it proves something."""

from history import Add, Extend, Outcome, Poll, Remove

ACKED_A_SECOND = 100
FAULTS_PER_UNKNOWN = 5
LEAST_PER_LIFE = {"items added": 10, "items taken": 10, "removes": 10, "extends": 1, "items that came back": 0.5}
"""Of what took effect, in each life of a server under load, on average."""


def enough(history, begin, end):
    """Whether so much was answered between two moments that a fault just then proves something."""
    return history.acked_between(begin, end) >= ACKED_A_SECOND * (end - begin)


def unknown_since(history, begin):
    """How many adds, removes and extends since *begin* nobody knows the outcome of."""
    return sum(
        1
        for each in history.calls
        if each.invoked >= begin and each.outcome is Outcome.UNKNOWN and type(each) is not Poll
    )


def effects(history):
    """How much of each kind took effect."""
    polls = history.of(Poll)
    return {
        "items added": sum(len(each.ids) for each in history.of(Add)),
        "items taken": sum(len(each.items) for each in polls),
        "removes": sum(each.done for each in history.of(Remove)),
        "extends": sum(each.done for each in history.of(Extend)),
        "items that came back": sum(item.attempt > 1 for each in polls for item in each.items),
    }


def lacking_in(history, lives):
    """What there was too little of in so many lives under load; nothing if there was enough."""
    return [
        f"{count} {kind} in {lives} lives"
        for kind, count in effects(history).items()
        if count < LEAST_PER_LIFE[kind] * lives
    ]


def too_few_unknown(history, faults):
    """Whether so many faults caught next to nothing in flight."""
    return unknown_since(history, 0.0) * FAULTS_PER_UNKNOWN < faults
