"""Random values of the interface, and values as pycapnp's worker has them: each field by its name in the schema."""

from enum import IntEnum

from hypothesis import strategies as st

from queueber.api import (
    Action,
    AddRequest,
    AddResponse,
    AddTo,
    AttachRequest,
    AttachResponse,
    Death,
    DeathReason,
    DeliveryFacts,
    ItemOptions,
    NewItem,
    Outcome,
    PollAnyRequest,
    PollAnyResponse,
    PolledItem,
    PollRequest,
    PollResponse,
    QueueWeight,
    SessionLease,
    Settled,
    Settlement,
    SettleRequest,
    SettleResponse,
)
from queueber.api import control_types as types
from queueber.capnp.reader import single_segment
from queueber.capnp.schema import schema
from queueber.rpc import Results
from queueber.rpc.messages import Params
from queueber.values import ControlOutcome, ItemState

ids = st.binary(min_size=16, max_size=16)
short = st.integers(0, (1 << 32) - 1)
long = st.integers(0, (1 << 64) - 1)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
names = texts.filter(bool)
blobs = st.binary(max_size=20)
id_lists = st.lists(ids, max_size=3)
headers = st.lists(st.tuples(names, blobs), max_size=3).map(tuple)
labels = st.lists(st.tuples(names, texts), max_size=3).map(tuple)

deaths = st.builds(Death, st.sampled_from(DeathReason), long, texts)
facts = st.builds(DeliveryFacts, short, short, long, texts, headers, st.none() | deaths)
options = st.builds(ItemOptions, headers, blobs, st.booleans(), long, long).filter(lambda each: each != ItemOptions())
new_items = st.builds(NewItem, blobs, st.integers(0, 1 << 40), st.none() | options)
without_keys = new_items.map(
    lambda item: item._replace(options=item.options and ItemOptions(item.options.headers, due=7))
)

add_requests = st.builds(AddRequest, st.lists(new_items, max_size=4), st.just(b"") | ids)
settlements = st.builds(
    Settlement,
    ids,
    st.just(b"") | ids,
    st.sampled_from(Action),
    st.none() | st.integers(0, 1 << 29),
    texts,
)
settle_requests = st.builds(
    SettleRequest,
    st.lists(settlements, max_size=4),
    st.lists(st.builds(AddTo, texts, st.lists(without_keys, max_size=3)), max_size=3),
    st.booleans(),
)
add_responses = st.builds(AddResponse, id_lists, st.lists(short, max_size=3).map(tuple))
settle_responses = st.builds(
    SettleResponse,
    st.lists(st.builds(Settled, st.sampled_from(Outcome), st.booleans(), long), max_size=4),
    st.lists(add_responses, max_size=3),
    st.booleans(),
)

attach_requests = st.builds(AttachRequest, ids, long, st.booleans())
attach_responses = st.builds(
    AttachResponse, st.lists(st.builds(SessionLease, ids, texts, id_lists), max_size=3), long, long, st.booleans()
)
weights = st.lists(st.builds(QueueWeight, texts, st.integers(1, 1_000)), min_size=1, max_size=4)
session_polls = st.builds(PollRequest, st.just(0), st.integers(1, 9), st.none(), st.booleans(), ids)
any_requests = st.builds(PollAnyRequest, weights, st.booleans(), session_polls)
polled_items = st.builds(PolledItem, blobs, ids, short, long)
poll_responses = st.builds(
    PollResponse, st.lists(polled_items, max_size=3), ids, long, st.booleans(), st.lists(facts, max_size=3).map(tuple)
)

settings = st.builds(
    types.QueueSettings,
    **dict.fromkeys(
        (
            "lease_ms",
            "max_lease_ms",
            "backoff_base_ms",
            "backoff_cap_ms",
            "max_items",
            "max_bytes",
            "max_item_bytes",
            "ttl_ms",
            "dead_ttl_ms",
            "dedup_window_ms",
            "idle_ttl_ms",
        ),
        long,
    ),
    max_attempts=short,
    backoff_on_loss=st.booleans(),
    drop_expired=st.booleans(),
    adds_paused=st.booleans(),
    polls_paused=st.booleans(),
    labels=labels,
)
counts = st.builds(
    types.QueueCounts,
    **dict.fromkeys(
        (
            "items",
            "bytes",
            "ready",
            "ready_max",
            "delayed",
            "delayed_max",
            "leased",
            "dead",
            "dead_bytes",
            "waiting_polls",
            "oldest_due_ms",
            "added",
            "removed",
            "counting",
        ),
        long,
    ),
    adds_paused=st.booleans(),
    polls_paused=st.booleans(),
)
lease_views = st.builds(
    types.LeaseView,
    handle=ids,
    items=short,
    since_ms=long,
    deadline_ms=long,
    peer=texts,
    session=st.booleans(),
    ids=id_lists,
)
waits = st.builds(
    types.Waits,
    lease=st.none() | lease_views,
    ahead=long,
    queue_paused=st.booleans(),
    leases_full=st.booleans(),
    waiting_polls=long,
)
item_views = st.builds(
    types.ItemView,
    id=ids,
    state=st.sampled_from(ItemState),
    contents=blobs,
    contents_bytes=long,
    added_at_ms=long,
    due_ms=long,
    attempts=short,
    facts=facts,
    expires_at_ms=long,
    place=blobs,
    waits=st.none() | waits,
)
summaries = st.builds(types.QueueSummary, name=texts, stats=counts, labels=labels)
outcomes = st.sampled_from(ControlOutcome)
limits = st.integers(1, 1_000)


def some(elements):
    """A part of a list of *elements*."""
    return st.builds(types.Listed, st.lists(elements, max_size=3), st.booleans())


settings_names = st.lists(
    st.sampled_from(["lease_ms", "max_attempts", "labels", "drop_expired", "backoff_on_loss"]), max_size=3, unique=True
)
flags = st.booleans()
CONTROL = {
    types.STATS: (flags, counts),
    types.SETTINGS: (st.none(), st.builds(types.SettingsInForce, settings=settings, defaults=settings_names)),
    types.CONFIGURE: (
        st.builds(types.ConfigureRequest, names=settings_names, settings=settings, reset=settings_names),
        settings,
    ),
    types.PEEK: (
        st.builds(
            types.PeekRequest,
            state=st.sampled_from([None, ItemState.READY, ItemState.DELAYED, ItemState.DEAD]),
            after=blobs,
            limit=limits,
            contents_bytes=st.none() | st.integers(1, 1 << 64 - 1),
        ),
        some(item_views),
    ),
    types.GET: (ids, st.none() | item_views),
    types.CANCEL: (ids, outcomes),
    types.KICK: (ids, outcomes),
    types.RESCHEDULE: (st.builds(types.RescheduleRequest, id=ids, due_ms=long), outcomes),
    types.PURGE: (flags, long),
    types.PAUSE: (st.builds(types.PauseRequest, adds=flags, polls=flags), st.none()),
    types.RESUME: (st.builds(types.PauseRequest, adds=flags, polls=flags), st.none()),
    types.REDRIVE: (
        st.builds(types.RedriveRequest, ids=id_lists, reason=st.sampled_from(DeathReason), limit=limits, to=texts),
        st.builds(types.Redriven, moved=long, more=flags),
    ),
    types.LEASES: (st.builds(types.LeasesRequest, after=blobs, limit=limits), some(lease_views)),
    types.END_LEASE: (ids, flags),
    types.DELETE: (flags, outcomes),
}
"""Requests and responses of each method of `QueueControl`."""

any_responses = st.builds(PollAnyResponse, texts, poll_responses)
queues_requests = st.builds(
    types.QueuesRequest, prefix=texts, label=st.none() | st.tuples(names, texts), after=texts, limit=limits
)


def params(content):
    """Return the parameters in a segment."""
    frame = single_segment(content, factor=8)
    return Params(frame, 0, 0, frame.end)


def results(content, capabilities=()):
    """Return the results in a segment."""
    return Results(params(content), capabilities)


def named(value, struct):
    """Return all fields of *struct*, taken from the attributes of *value* with the same names."""
    if struct in ADAPTED:
        value = ADAPTED[struct](value)
    elif isinstance(value, tuple) and not hasattr(value, "_fields"):
        # A pair, such as a header.
        value = dict(zip((field.name for field in schema().structs[struct].fields), value, strict=True))
    return {field.name: plain(attribute(value, field.name), field) for field in schema().structs[struct].fields}


def seconds(span):
    return -(-span // 1_000)


def given_options(items):
    """The list of options, which ends with the last item that has any."""
    given = [item.options or ItemOptions() for item in items]
    while given and given[-1] == ItemOptions():
        given.pop()
    return given


def poll_fields(poll):
    no_wait = poll.no_wait or poll.wait == 0
    wait = poll.wait or 0
    return {
        "leaseValiditySecs": seconds(poll.lease),
        "leaseValidityMs": poll.lease,
        "numItems": poll.num_items,
        "timeoutSecs": 1 if no_wait else seconds(wait),
        "timeoutMs": wait,
        "noWait": no_wait,
        "session": poll.session,
    }


ADAPTED = {
    "Item": lambda item: {
        "contents": item.contents,
        "visibilityTimeoutSecs": seconds(item.delay),
        "visibilityTimeoutMs": item.delay,
    },
    "AddRequest": lambda add: {
        "items": add.items,
        "requestId": add.request_id,
        "options": given_options(add.items),
    },
    "AddTo": lambda add: {"queue": add.queue, "items": add.items, "options": given_options(add.items)},
    "Settlement": lambda each: {
        **each._asdict(),
        "hasDelay": each.delay is not None,
        "delayMs": each.delay or 0,
    },
    "PollRequest": poll_fields,
    "PollResponse": lambda response: {**response._asdict(), "leaseDeadlineMs": response.deadline},
    "PeekRequest": lambda peek: {
        "states": [] if peek.state is None else [peek.state],
        "after": peek.after,
        "limit": peek.limit,
        "contentsBytes": peek.contents_bytes or 0,
    },
}
"""Structs whose fields are others than the attributes of our values."""


def attribute(value, name):
    """Return the attribute of *value* for the schema's field *name*."""
    ours = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    if name.startswith("reserved"):
        return False
    if isinstance(value, dict):
        return value[name if name in value else ours]
    return getattr(value, ours) if hasattr(value, ours) else getattr(value, ours.removesuffix("_ms"))


def plain(value, field):
    """Return the value of a field as pycapnp's worker has it."""
    if field.kind == "list":
        return [plain_element(each, field.element, field.struct) for each in value]
    if field.kind == "struct" and value is None:
        return None
    return plain_element(value, field.kind, field.struct)


def plain_element(value, kind, struct):
    if kind == "struct":
        return named(value, struct)
    if isinstance(value, bytes):
        return value.hex()
    return int(value) if isinstance(value, IntEnum) else value
