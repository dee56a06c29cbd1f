"""
pycapnp's own RPC client, compiled from the same schema: a peer that shares no code with ours, so that
an error of our encoder and our decoder cannot hide itself.

Run as ``foreign_peer.py SCENARIO PORT``; exits with 0 when everything was as it must be.
"""

import asyncio
import contextlib
import sys
import time
from pathlib import Path

import capnp

capnp.remove_import_hook()
SCHEMA = capnp.load(str(Path(__file__).parents[2] / "schema" / "queueber.capnp"))


def add(queue, *contents, delay_ms=0, delay_secs=0):
    request = queue.add_request()
    items = request.req.init("items", len(contents))
    for index, each in enumerate(contents):
        items[index].contents = each
        items[index].visibilityTimeoutMs = delay_ms
        items[index].visibilityTimeoutSecs = delay_secs
    return request.send()


def poll(queue, count=1, *, lease_ms=30_000, lease_secs=0, wait_ms=0, no_wait=False):
    request = queue.poll_request()
    request.req.numItems = count
    request.req.leaseValidityMs = lease_ms
    request.req.leaseValiditySecs = lease_secs
    request.req.timeoutMs = wait_ms
    request.req.noWait = no_wait
    return request.send()


def remove(queue, item_id, lease):
    request = queue.remove_request()
    request.req.id = item_id
    request.req.lease = lease
    return request.send()


def extend(queue, lease, *, ms=0, secs=0):
    request = queue.extend_request()
    request.req.lease = lease
    request.req.leaseValidityMs = ms
    request.req.leaseValiditySecs = secs
    return request.send()


def ask(broker, name):
    request = broker.queue_request()
    request.name = name
    return request.send()


def named(broker, name):
    return ask(broker, name).queue


async def connect(port):
    stream = await capnp.AsyncIoStream.create_connection(host="127.0.0.1", port=port)
    client = capnp.TwoPartyClient(stream)
    return client, client.bootstrap().cast_as(SCHEMA.Broker)


async def take(queue, count=1, **kwargs):
    resp = (await poll(queue, count, no_wait=True, **kwargs)).resp
    return [bytes(item.contents) for item in resp.items], resp


async def calls(port):
    _client, broker = await connect(port)
    ids = [bytes(each) for each in (await add(broker, b"a", b"", b"c")).resp.ids]
    assert ids == sorted(ids)
    assert all(len(each) == 16 and each[6] >> 4 == 7 and each[8] >> 6 == 2 for each in ids)
    assert list((await add(broker)).resp.ids) == []
    began = time.time()
    contents, resp = await take(broker, 2, lease_ms=0, lease_secs=30)
    assert contents == [b"a", b""]
    assert [bytes(item.id) for item in resp.items] == ids[:2]
    assert [item.attempt for item in resp.items] == [1, 1]
    lease = bytes(resp.lease)
    assert len(lease) == 16 and lease[6] >> 4 == 4
    assert began - 5 < resp.leaseDeadlineMs / 1000 - 30 < time.time() + 5
    assert began - 60 < resp.items[0].addedAtMs / 1000 < time.time() + 5
    assert (await remove(broker, ids[0], lease)).resp.removed
    assert not (await remove(broker, ids[0], lease)).resp.removed
    assert not (await remove(broker, ids[2], lease)).resp.removed
    assert not (await remove(broker, b"short", lease)).resp.removed
    assert (await extend(broker, lease, secs=60)).resp.extended
    assert not (await extend(broker, bytes(16), ms=1)).resp.extended
    contents, empty = await take(named(broker, "nothing here"))
    assert contents == [] and bytes(empty.lease) == b"" and empty.leaseDeadlineMs == 0
    await refusals(broker)
    assert (await take(broker, 0))[0] == [b"c"]


async def refusals(broker):
    for call, complaint in [
        (lambda: poll(broker, lease_ms=0), "must last longer"),
        (lambda: extend(broker, bytes(16)), "must last longer"),
        (lambda: remove(broker, bytes(16), b"short"), "lease is 5 bytes; it must be 16"),
        (lambda: extend(broker, b"", ms=1), "lease is 0 bytes; it must be 16"),
        (lambda: ask(broker, ""), "1 to 255"),
        (lambda: add(broker, b"x", delay_ms=2**63), "visibilityTimeoutMs is"),
    ]:
        try:
            await call()
        except capnp.KjException as why:
            assert complaint in str(why), why
            assert "Traceback" not in str(why)
        else:
            raise AssertionError(complaint)


async def in_line(broker):
    """Wait until the server has handled all calls through *broker*: the calls of a connection are ordered."""
    assert not (await extend(broker, bytes(16), ms=1)).resp.extended


async def waits(port):
    _client, broker = await connect(port)
    _other, second = await connect(port)
    started = time.monotonic()
    assert len((await poll(broker, wait_ms=200)).resp.items) == 0
    assert time.monotonic() - started >= 0.2
    waiting = poll(broker, 3)
    await in_line(broker)
    await add(second, b"at once")
    resp = (await waiting).resp
    assert [bytes(item.contents) for item in resp.items] == [b"at once"]
    started = time.monotonic()
    waiting = poll(broker)
    await add(second, b"delayed", delay_ms=300)
    assert bytes((await waiting).resp.items[0].contents) == b"delayed"
    assert time.monotonic() - started >= 0.3
    # Three waiting polls, then six items at once, which are allocated round-robin.
    polls = [poll(broker, 5), poll(broker, 3), poll(broker, 1)]
    await in_line(broker)
    await add(second, *[b"%d" % number for number in range(6)])
    assert [len((await each).resp.items) for each in polls] == [3, 2, 1]
    # A lease that expires returns its items.
    await add(broker, b"again")
    assert (await take(broker, lease_ms=100))[1].items[0].attempt == 1
    resp = (await poll(broker, wait_ms=60_000)).resp
    assert resp.items[0].attempt == 2


async def queues(port):
    client, broker = await connect(port)
    mail = named(broker, "mail")
    await add(mail, b"for mail")
    await add(broker, b"for all")
    assert (await take(named(broker, "mail"), 9))[0] == [b"for mail"]
    contents, resp = await take(broker, 9)
    assert contents == [b"for all"]
    assert not (await remove(mail, resp.items[0].id, resp.lease)).resp.removed
    assert not (await extend(mail, resp.lease, ms=1000)).resp.extended
    assert (await remove(named(broker, "default"), resp.items[0].id, resp.lease)).resp.removed
    # Bootstrapped twice, and used through the interface of old clients.
    old = client.bootstrap().cast_as(SCHEMA.Queue)
    await add(old, b"old")
    assert (await take(client.bootstrap().cast_as(SCHEMA.Broker), 9))[0] == [b"old"]
    many = [named(broker, f"queue {number}") for number in range(200)]
    await asyncio.gather(*[add(queue, b"x") for queue in many])
    del many, mail
    assert (await take(named(broker, "queue 199"), 9))[0] == [b"x"]


async def forget(port):
    """Fire and forget: the Finish follows the Call at once, and the call takes effect."""
    _client, broker = await connect(port)
    for number in range(20):
        promise = add(broker, b"%d" % number)
        with contextlib.suppress(Exception):
            promise.cancel()
        del promise
    waiting = poll(named(broker, "other"))
    await asyncio.sleep(0.05)
    waiting.cancel()
    del waiting
    await add(named(broker, "other"), b"not for the cancelled one")
    assert (await take(named(broker, "other"), 9))[0] == [b"not for the cancelled one"]
    assert len((await take(broker, 100))[0]) == 20


async def large(port):
    _client, broker = await connect(port)
    for sizes in [(8 << 20,), (10_000,) * 10, (1,) * 1000, (70_000, 0, 7, 8, 9) * 20]:
        sent = [bytes([index % 251]) * size for index, size in enumerate(sizes)]
        assert len((await add(broker, *sent)).resp.ids) == len(sent)
        got = []
        while len(got) < len(sent):
            contents, resp = await take(broker, 1000)
            got += contents
            assert contents
            for item in resp.items:
                assert (await remove(broker, item.id, resp.lease)).resp.removed
        assert got == sent
    try:
        await add(broker, b"x" * ((8 << 20) + 1))
    except capnp.KjException as why:
        assert "contents is 8,388,609 bytes; the limit is 8,388,608" in str(why), why
    else:
        raise AssertionError("too large contents were taken")
    await add(broker, b"the connection goes on")


async def traffic(port, label="x"):
    """Add and remove as fast as possible, and print what is acknowledged, until the server is killed."""
    _client, broker = await connect(port)

    async def worker(name):
        for number in range(100_000):
            contents = f"{label}-{name}-{number}".encode()
            assert len((await add(broker, contents)).resp.ids) == 1
            print("added", contents.decode(), flush=True)
            if number % 3 == 0:
                resp = (await poll(broker, no_wait=True, lease_ms=600_000)).resp
                for item in resp.items:
                    print("leased", bytes(item.contents).decode(), flush=True)
                    if number % 2 == 0:
                        print("removing", bytes(item.contents).decode(), flush=True)
                        if (await remove(broker, item.id, resp.lease)).resp.removed:
                            print("removed", bytes(item.contents).decode(), flush=True)

    with contextlib.suppress(capnp.KjException, ConnectionError):
        await asyncio.gather(*[worker(f"w{number}") for number in range(16)])


async def drain(port):
    """Print all items that a poll returns, with their attempts."""
    _client, broker = await connect(port)
    while True:
        resp = (await poll(broker, 1000, no_wait=True, lease_ms=600_000)).resp
        if not len(resp.items):
            return
        for item in resp.items:
            print(bytes(item.contents).decode(), item.attempt)


if __name__ == "__main__":
    scenario = {each.__name__: each for each in (calls, waits, queues, forget, large, traffic, drain)}[sys.argv[1]]
    asyncio.run(capnp.run(scenario(int(sys.argv[2]), *sys.argv[3:])))
