"""Random requests and results of settle, sessions, control and polls of several queues."""

from queueber import api
from queueber.api import control
from queueber.api import control_types as types
from queueber.values import ControlOutcome, ItemState

NAMES = ["mail", "jobs", "default", "", "ü" * 120, "x" * 256]
HEADERS = [("trace", b"\0"), ("ü", bytes(2_000)), ("x" * 255, b""), ("large", bytes(2_090))]
POINTS = [0, 1, 1_000, 1 << 41, (1 << 64) - 1]
SPANS = [0, 1, 1_000, 60_000, 7 * 86_400_000, 1 << 62]
SHORT = [0, 1, 3, 10, 1_000, 1_001, (1 << 32) - 1]


def some(dice, make, most=3):
    """Return a list of what *make* returns."""
    return [make() for _ in range(dice.randrange(most + 1))]


def flag(dice):
    return dice.random() < 0.5


def options(dice):
    return api.ItemOptions(
        headers=tuple(some(dice, lambda: dice.choice(HEADERS))),
        dedup_key=dice.choice([b"", b"", b"k", bytes(255), bytes(256)]),
        until_removed=flag(dice),
        expires_at=dice.choice(POINTS),
        due=dice.choice(POINTS),
    )


def death(dice):
    return api.Death(dice.choice(list(api.DeathReason)), dice.choice(POINTS), dice.choice(NAMES))


def facts(dice):
    return api.DeliveryFacts(
        dice.choice(SHORT),
        dice.choice(SHORT),
        dice.choice(POINTS),
        dice.choice(["", "no such file", "x" * 4_096]),
        tuple(some(dice, lambda: dice.choice(HEADERS))),
        death(dice) if flag(dice) else None,
    )


class Operations:
    """Makes requests, with ids and leases of *identifier*, items of *new_item* and polls of *poll*."""

    def __init__(self, identifier, new_item, poll):
        self.identifier = identifier
        self.new_item = new_item
        self.poll = poll

    def settle(self, dice):
        def entry():
            return api.Settlement(
                self.identifier(dice, "lease"),
                self.identifier(dice, "item") if flag(dice) else b"",
                dice.choice(list(api.Action)),
                dice.choice([None, *SPANS]),
                dice.choice(["", "", "broken", "x" * 4_096, "x" * 4_097]),
            )

        adds = [
            api.AddTo(dice.choice(NAMES), some(dice, lambda: self.new_item(dice)))
            for _ in range(dice.choice([0, 0, 1, 2]))
        ]
        return api.SETTLE, api.write_settle_request(api.SettleRequest(some(dice, entry, 4), adds, flag(dice)))

    def dead_letters(self, dice):
        return api.DEAD_LETTERS, api.write_dead_letters_request()

    def of_root(self, dice):
        """Return the method and parameters of a call of the Broker."""
        queues = [api.QueueWeight(dice.choice(NAMES), dice.choice([0, 1, 5, 1_001])) for _ in range(dice.randrange(4))]
        listing = types.QueuesRequest(
            prefix=dice.choice(NAMES),
            label=dice.choice([None, ("team", "post")]),
            after=dice.choice(NAMES),
            limit=dice.choice(SHORT),
        )
        session = dice.choice([b"s" * 16, b"t" * 16, b"", b"s" * 15])
        return dice.choice(
            [
                (api.ATTACH, api.write_attach_request(api.AttachRequest(session, dice.choice(SPANS), flag(dice)))),
                (api.PING, api.write_ping_request()),
                (api.QUEUES, control.write_queues_request(listing)),
                (api.POLL_ANY, api.write_poll_any_request(api.PollAnyRequest(queues, flag(dice), self.poll(dice)))),
            ]
        )

    def of_control(self, dice):
        """Return the method and parameters of a call of a QueueControl."""
        item = self.identifier(dice, "item")
        settings = types.QueueSettings(
            lease_ms=dice.choice(SPANS),
            max_attempts=dice.choice(SHORT),
            max_items=dice.choice(SHORT),
            labels=(("team", "post"),) if flag(dice) else (),
        )
        requests = {
            types.STATS: flag(dice),
            types.SETTINGS: None,
            types.CONFIGURE: types.ConfigureRequest(
                names=some(dice, lambda: dice.choice(["lease_ms", "max_attempts", "labels", "adds_paused", "none_ms"])),
                settings=settings,
                reset=some(dice, lambda: dice.choice(["max_items", "labels", "polls_paused"])),
            ),
            types.PEEK: types.PeekRequest(
                state=dice.choice([None, *ItemState]),
                after=dice.choice([b"", bytes(24), bytes(65)]),
                limit=dice.choice(SHORT),
                contents_bytes=dice.choice([None, 1, 1 << 40]),
            ),
            types.GET: item,
            types.CANCEL: item,
            types.KICK: item,
            types.RESCHEDULE: types.RescheduleRequest(id=item, due_ms=dice.choice(POINTS)),
            types.PURGE: flag(dice),
            types.PAUSE: types.PauseRequest(adds=flag(dice), polls=flag(dice)),
            types.RESUME: types.PauseRequest(adds=True, polls=True),
            types.REDRIVE: types.RedriveRequest(
                ids=some(dice, lambda: self.identifier(dice, "item")),
                reason=dice.choice(list(api.DeathReason)),
                limit=dice.choice(SHORT),
                to=dice.choice(NAMES),
            ),
            types.LEASES: types.LeasesRequest(after=dice.choice([b"", bytes(16), bytes(33)]), limit=dice.choice(SHORT)),
            types.END_LEASE: self.identifier(dice, "lease"),
            types.DELETE: flag(dice),
        }
        method = dice.choice(list(requests))
        return method, control.write_control_request(method, requests[method])


def results(dice):
    """Return the results of one of these methods."""

    def identifier():
        return dice.randbytes(16)

    settled = api.SettleResponse(
        some(dice, lambda: api.Settled(dice.choice(list(api.Outcome)), flag(dice), dice.choice(POINTS))),
        some(dice, lambda: api.AddResponse(some(dice, identifier), (1, 2))),
        flag(dice),
    )
    attached = api.AttachResponse(
        some(dice, lambda: api.SessionLease(identifier(), dice.choice(NAMES), some(dice, identifier))),
        dice.choice(SPANS),
        dice.choice(SPANS),
        flag(dice),
    )
    lease = types.LeaseView(handle=identifier(), items=2, peer="192.0.2.1:5", session=True, ids=some(dice, identifier))
    item = types.ItemView(
        id=identifier(),
        state=dice.choice(list(ItemState)),
        contents=b"x" * dice.randrange(20),
        contents_bytes=20,
        added_at_ms=1,
        due_ms=2,
        facts=facts(dice),
        waits=types.Waits(lease=lease if flag(dice) else None, ahead=5) if flag(dice) else None,
    )
    counts = types.QueueCounts(items=5, ready=1, ready_max=3)
    summary = types.QueueSummary(name="mail", stats=counts, labels=(("team", "post"),))
    answers = {
        types.STATS: counts,
        types.SETTINGS: types.SettingsInForce(settings=types.QueueSettings(), defaults=["lease_ms"]),
        types.PEEK: types.Listed([item] * dice.randrange(3), flag(dice)),
        types.GET: item,
        types.CANCEL: dice.choice(list(ControlOutcome)),
        types.REDRIVE: types.Redriven(moved=3, more=flag(dice)),
        types.LEASES: types.Listed([lease], flag(dice)),
    }
    method = dice.choice(list(answers))
    return dice.choice(
        [
            lambda: api.write_settle_response(settled),
            lambda: api.write_attach_response(attached),
            lambda: api.write_ping_response(some(dice, identifier)),
            lambda: control.write_queues_response(types.Listed([summary], flag(dice))),
            lambda: control.write_control_response(method, answers[method]),
        ]
    )()
