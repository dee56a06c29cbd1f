"""
pycapnp's own RPC client and the methods that the original schema lacks: one scenario for each group of them.

Run as ``foreign_operations.py SCENARIO PORT``; exits with 0 when everything was as it must be.
"""

import asyncio
import sys
import time

import capnp
from foreign_peer import add, connect, named, poll, remove, take

SESSION = bytes(range(16))


def settle(queue, *entries, adds=(), all_or_nothing=False):
    request = queue.settle_request()
    request.req.allOrNothing = all_or_nothing
    for found, values in zip(request.req.init("entries", len(entries)), entries, strict=True):
        for name, value in values.items():
            setattr(found, name, value)
    for found, (name, contents) in zip(request.req.init("adds", len(adds)), adds, strict=True):
        found.queue = name
        found.init("items", 1)[0].contents = contents
    return request.send()


def outcomes(answer):
    return [str(each.outcome) for each in answer.resp.settled]


async def refused(call, complaint):
    try:
        await call
    except capnp.KjException as why:
        assert complaint in str(why), why
        assert "Traceback" not in str(why)
    else:
        raise AssertionError(complaint)


async def facts(port):
    """An item that was lost says so, and one that is new says nothing."""
    _client, broker = await connect(port)
    await add(broker, b"lost")
    assert len((await take(broker, lease_ms=50))[1].facts) == 0
    resp = (await poll(broker, wait_ms=60_000)).resp
    assert [(each.failures, each.losses) for each in resp.facts] == [(0, 1)]
    assert abs(resp.facts[0].firstLeasedAtMs / 1_000 - time.time()) < 60
    assert not resp.session


async def options(port):
    """Headers are delivered, and an item may become due at a point in time and expire."""
    _client, broker = await connect(port)
    request = broker.add_request()
    items, given = request.req.init("items", 3), request.req.init("options", 2)
    for item, contents in zip(items, (b"headers", b"later", b"plain"), strict=True):
        item.contents = contents
    header = given[0].init("headers", 1)[0]
    header.name, header.value = "trace", b"\0\1"
    given[1].dueMs = int(time.time() * 1_000) + 300
    await request.send()
    contents, resp = await take(broker, 9)
    assert contents == [b"headers", b"plain"]
    assert [(each.name, bytes(each.value)) for each in resp.facts[0].headers] == [("trace", b"\0\1")]
    assert bytes((await poll(broker, wait_ms=60_000)).resp.items[0].contents) == b"later"
    request = broker.add_request()
    request.req.init("items", 1)
    request.req.init("options", 1)[0].init("headers", 65)
    await refused(request.send(), "options[0].headers is 65 elements; the limit is 64")


async def settled(port):
    """Failed, deferred and rejected items, dead letters, and a hand-off."""
    _client, broker = await connect(port)
    await add(broker, b"fails", b"is deferred", b"is rejected")
    _, resp = await take(broker, 3)
    ids, lease = [bytes(item.id) for item in resp.items], bytes(resp.lease)
    answer = await settle(
        broker,
        {"lease": lease, "id": ids[0], "action": "fail", "hasDelay": True, "error": "broken"},
        {"lease": lease, "id": ids[1], "action": "defer"},
        {"lease": lease, "id": ids[2], "action": "reject", "error": "poison"},
        {"lease": lease, "id": ids[2], "action": "remove"},
        {"lease": bytes(16), "action": "extend", "hasDelay": True, "delayMs": 1_000},
    )
    assert outcomes(answer)[:3] == ["done"] * 3
    assert set(outcomes(answer)[3:]) <= {"leaseLost", "notFound"}
    assert [each.died for each in answer.resp.settled] == [False, False, True, False, False]
    assert answer.resp.changed

    resp = (await poll(broker, 3)).resp
    found = {bytes(item.contents): place for place, item in enumerate(resp.items)}
    assert found.keys() == {b"fails", b"is deferred"}
    lost = resp.facts[found[b"fails"]]
    assert (lost.failures, lost.losses, lost.lastError) == (1, 0, "broken")
    assert resp.items[found[b"fails"]].attempt == 2
    assert resp.items[found[b"is deferred"]].attempt == 1

    dead = broker.deadLetters().queue
    _, buried = await take(dead)
    assert [bytes(item.id) for item in buried.items] == [ids[2]]
    death = buried.facts[0].death
    assert (str(death.reason), death.queue, buried.facts[0].lastError) == ("rejected", "default", "poison")
    await refused(add(dead, b"x"), "dead")
    assert (await remove(dead, ids[2], buried.lease)).resp.removed

    # One entry that is stale refuses the whole call, and what it adds.
    lease = bytes(resp.lease)
    stale = {"lease": lease, "id": ids[2], "action": "remove"}
    answer = await settle(broker, {"lease": lease, "action": "remove"}, stale, adds=[("next", b"step")])
    assert not answer.resp.changed and len(answer.resp.added) == 0
    answer = await settle(broker, {"lease": lease, "action": "remove"}, adds=[("next", b"step")])
    assert answer.resp.changed and len(answer.resp.added[0].ids) == 1
    assert (await take(named(broker, "next")))[0] == [b"step"]
    await refused(settle(broker, {"lease": b"short"}), "entries[0].lease is 5 bytes; it must be 16")


async def once(port):
    """A call that is sent twice with one id, and two items with one key."""
    _client, broker = await connect(port)

    def request(contents, **fields):
        made = broker.add_request()
        made.req.init("items", 1)[0].contents = contents
        made.req.requestId = fields.get("number", b"")
        if "key" in fields:
            made.req.init("options", 1)[0].dedupKey = fields["key"]
        return made.send()

    first, again = await request(b"x", number=SESSION), await request(b"x", number=SESSION)
    assert bytes(first.resp.ids[0]) == bytes(again.resp.ids[0])
    first, again = await request(b"y", key=b"k"), await request(b"z", key=b"k")
    assert bytes(first.resp.ids[0]) == bytes(again.resp.ids[0])
    assert (list(first.resp.duplicates), list(again.resp.duplicates)) == ([], [0])
    assert (await take(broker, 9))[0] == [b"x", b"y"]


async def sessions(port):
    """A lease that lasts as long as its session, over a reconnection."""
    client, broker = await connect(port)

    def attach(broker, more=False):
        request = broker.attach_request()
        request.session, request.graceMs, request.more = SESSION, 60_000, more
        return request.send()

    attached = (await attach(broker)).resp
    assert (len(attached.leases), attached.graceMs) == (0, 60_000)
    await add(broker, b"held")
    request = broker.poll_request()
    request.req.noWait, request.req.session = True, SESSION
    resp = (await request.send()).resp
    assert resp.session and resp.leaseDeadlineMs == 0 and len(resp.items) == 1
    assert len((await broker.ping()).ended) == 0
    del client
    _other, second = await connect(port)
    found = (await attach(second)).resp
    (held,) = found.leases
    assert not found.more and len((await attach(second, more=True)).resp.leases) == 0
    assert bytes(held.lease) == bytes(resp.lease)
    assert [bytes(each) for each in held.ids] == [bytes(resp.items[0].id)]
    assert (await remove(second, resp.items[0].id, resp.lease)).resp.removed


async def controlled(port):
    """Settings, counts, items, leases, and the end of a queue."""
    _client, broker = await connect(port)
    mail = named(broker, "mail")
    control_request = broker.control_request()
    control_request.name = "mail"
    control = control_request.send().control
    ids = [bytes(each) for each in (await add(mail, b"one", b"two", b"three")).resp.ids]

    request = control.configure_request()
    request.init("fields", 1)[0] = "maxAttempts"
    request.settings.maxAttempts = 3
    assert (await request.send()).settings.maxAttempts == 3
    found = await control.settings()
    assert found.settings.maxAttempts == 3 and "maxAttempts" not in list(found.defaults)
    request = control.configure_request()
    request.init("reset", 1)[0] = "maxAttempts"
    assert (await request.send()).settings.maxAttempts == 0
    assert "maxAttempts" in list((await control.settings()).defaults)

    request = control.peek_request()
    peeked = await request.send()
    assert [bytes(item.contents) for item in peeked.items] == [b"one", b"two", b"three"] and not peeked.more

    def with_id(method, number):
        made = getattr(control, f"{method}_request")()
        made.id = number
        return made.send()

    assert str((await with_id("cancel", ids[1])).outcome) == "done"
    assert str((await with_id("cancel", ids[1])).outcome) == "notFound"
    assert not (await with_id("get", ids[1])).found
    await take(mail)
    got = await with_id("get", ids[0])
    assert got.found and str(got.item.state) == "leased"
    assert str((await with_id("kick", ids[0])).outcome) == "leased"
    (lease,) = (await control.leases()).leases
    assert lease.items == 1
    request = control.endLease_request()
    request.lease = bytes(lease.handle)
    assert (await request.send()).ended
    # The sweeper returns the items, as it does for a lease that has run out.
    while (stats := (await control.stats()).stats).leased:  # noqa: ASYNC110 -- there is no event for it
        await asyncio.sleep(0.05)
    assert stats.items == 2
    listed = await broker.queues()
    assert [each.name for each in listed.queues] == ["mail"]
    assert (await control.purge()).items == 2
    assert str((await control.delete()).outcome) == "done"


async def several(port):
    """A poll of several queues."""
    _client, broker = await connect(port)
    await add(named(broker, "second"), b"x")
    request = broker.pollAny_request()
    for found, name in zip(request.req.init("queues", 2), ("first", "second"), strict=True):
        found.queue = name
    request.req.poll.noWait, request.req.poll.leaseValidityMs = True, 30_000
    resp = (await request.send()).resp
    assert resp.queue == "second"
    assert [bytes(item.contents) for item in resp.poll.items] == [b"x"]


if __name__ == "__main__":
    scenarios = (facts, options, settled, once, sessions, controlled, several)
    scenario = {each.__name__: each for each in scenarios}[sys.argv[1]]
    asyncio.run(capnp.run(scenario(int(sys.argv[2]))))
