"""Every method of the interface, over each face."""

import os

import pytest

from queueber.api import Action, AddTo, Outcome, Settlement
from queueber.client_core.items import new_item
from queueber.errors import InvalidRequest, Unimplemented
from queueber.limits import DEFAULTS
from queueber.values import ControlOutcome, ItemState


async def test_items_are_added_polled_and_removed(face, url):
    async with face.client(url) as client:
        queue = client.queue()
        ids = await queue.add(b"first", bytearray(b"second"))
        batch = await queue.poll(5)
        assert [item.contents for item in batch] == [b"first", b"second"]
        assert [item.id for item in batch.items] == ids
        assert len(batch) == 2 and batch.deadline > 0 and not batch.session
        item = batch.items[0]
        assert (item.attempt, item.lease, item.failures) == (1, batch.lease, 0)
        assert await queue.remove(item.id, batch.lease) is True
        assert await queue.remove(item.id, batch.lease) is False
        assert await queue.extend(batch.lease, 60_000) is True
        assert await batch.items[1].extend(60_000) is True
        assert await batch.items[1].remove() is True
        assert await queue.extend(batch.lease, 60_000) is False


async def test_an_empty_poll_has_no_lease(face, url):
    async with face.client(url) as client:
        batch = await client.queue().poll(wait_ms=0)
        assert (len(batch), batch.lease, batch.deadline) == (0, b"", 0)


async def test_a_request_id_adds_once(face, url):
    async with face.client(url) as client:
        queue, number = client.queue(), os.urandom(16)
        first = await queue.add_items(new_item(b"once", headers={"h": b"1"}, dedup_key=b"k"), request_id=number)
        again = await queue.add_items(new_item(b"once", headers={"h": b"1"}, dedup_key=b"k"), request_id=number)
        assert list(first.ids) == list(again.ids)
        assert (await queue.add_items(new_item(b"other", dedup_key=b"k"))).duplicates == (0,)
        (item,) = (await queue.poll(2)).items
        assert item.headers == {"h": b"1"}
        await item.remove()


async def test_items_leave_their_lease_in_every_way(face, server, url):
    async with face.client(url) as client:
        queue = client.queue()
        (item_id,) = await queue.add(b"x")
        (item,) = (await queue.poll()).items
        assert (await item.fail("too hot", delay_ms=0)).outcome is Outcome.DONE
        server.advance(1)
        (item,) = (await queue.poll()).items
        assert (item.failures, item.last_error, item.attempt) == (1, "too hot", 2)
        assert (await item.defer(delay_ms=0)).outcome is Outcome.DONE
        server.advance(1)
        (item,) = (await queue.poll()).items
        assert (await item.reject("no good")).died
        assert (await item.fail("again")).outcome is Outcome.LEASE_LOST
        dead = queue.dead_letters()
        assert dead.name == queue.name
        (item,) = (await dead.poll()).items
        assert (item.id, item.death.queue) == (item_id, queue.name)
        with pytest.raises(InvalidRequest, match="no dead items"):
            dead.dead_letters()
        assert await item.remove()


async def test_the_queue_settles_one_and_many(face, url, name):
    async with face.client(url) as client:
        queue = client.queue(name)
        await queue.add(b"a", b"b", b"c", b"d")
        batch = await queue.poll(4)
        a, b, c, d = [item.id for item in batch.items]
        assert (await queue.fail(a, batch.lease, "e", delay_ms=60_000)).outcome is Outcome.DONE
        assert (await queue.defer(b, batch.lease, delay_ms=60_000)).outcome is Outcome.DONE
        assert (await queue.reject(c, batch.lease, "e")).died
        answer = await client.default.settle(
            Settlement(batch.lease, d, Action.REMOVE), adds=[AddTo(name, [new_item(b"next")])], all_or_nothing=True
        )
        assert answer.changed and answer.settled[0].outcome is Outcome.DONE and len(answer.added[0].ids) == 1


async def test_a_poll_of_several_queues_takes_from_one(face, url, name):
    async with face.client(url) as client:
        other = client.queue(f"{name[-150:]}-other")
        await other.add(b"x")
        found, batch = await client.poll_any([name, other.name], wait_ms=0)
        assert found == other.name
        assert await batch.items[0].remove()
        assert (await client.poll_any({name: 3, other.name: 1}, wait_ms=0))[0] == ""


async def test_operators_look_and_change(face, server, url, name):
    async with face.client(url) as client:
        control = client.control(name)
        assert (control.name, client.queue().name, client.default.name) == (name, name, "default")
        first, second, _ = await client.queue().add(b"1", b"2", b"3")
        assert (await control.stats(exact=True)).ready == 3
        assert (await control.configure(max_attempts=3, labels={"team": "a"})).max_attempts == 3
        assert "max_attempts" not in (await control.settings()).defaults
        assert [view.id for view in (await control.peek(ItemState.READY, limit=2)).found] == [first, second]
        assert (await control.get(first)).contents == b"1"
        assert await control.cancel(first) is ControlOutcome.DONE
        assert await control.get(first) is None
        assert await control.reschedule(second, int(server.now.timestamp() * 1_000) + 60_000) is ControlOutcome.DONE
        assert await control.kick(second) is ControlOutcome.DONE
        assert await control.pause(adds=True) is None
        assert await control.resume() is None
        batch = await client.queue().poll()
        (lease,) = (await control.leases()).found
        assert await control.end_lease(lease.handle) is True
        assert await batch.items[0].remove() is False
        server.advance(1)
        (item,) = (await client.queue().poll()).items
        await item.reject("dead")
        assert (await control.redrive()).moved == 1
        listed = await client.queues(name, label=("team", "a"))
        assert [each.name for each in listed.found] == [name]
        assert await control.purge() == 2
        assert await control.purge(dead=True) == 0
        assert await control.delete(force=True) is ControlOutcome.DONE


async def test_the_server_states_its_limits(face, url):
    async with face.client(url) as client:
        assert (await client.limits()).contents_bytes == DEFAULTS.contents_bytes


async def test_a_session_of_the_program_is_attached_and_pinged(face, url):
    async with face.client(url) as client:
        session = os.urandom(16)
        assert (await client.attach(session, grace_ms=10_000)).leases == []
        await client.queue().add(b"x")
        batch = await client.queue().poll(session=session)
        assert batch.session and batch.deadline == 0
        assert await client.ping() == []
        assert await batch.items[0].remove()


async def test_administration_needs_the_control_socket(face, url, tmp_path):
    async with face.client(url) as client:
        for call in (client.admin.stats, client.admin.check, client.admin.backup_progress):
            with pytest.raises(Unimplemented):
                await call()
        with pytest.raises(Unimplemented):
            await client.admin.backup(tmp_path)


async def test_the_queue_of_the_url_is_the_default(face, server, url, name):
    async with face.client(url) as client:
        assert client.queue().name == name
        assert client.default.name == "default"
        assert client.queue("other").name == "other"
    async with face.client(server.url()) as client:
        assert client.queue().name == "default"


async def test_a_unix_socket_serves_as_well(face, server, name):
    async with face.client(f"queueber+unix://{server.path}?queue=local") as client:
        assert client.queue().name == "local"
        await client.queue(name).add(b"x")
        async with await client.queue(name).poll() as item:
            assert item.contents == b"x"
