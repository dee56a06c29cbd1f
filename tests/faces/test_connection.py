"""One connection for many calls, and what becomes of them when it is lost, over each face."""

import asyncio
import os
import re

import pytest

from queueber.client_core.errors import CallTimedOut, OutcomeUnknown
from queueber.client_core.items import new_item
from queueber.client_core.kept_session import SessionState
from queueber.errors import InvalidRequest
from tests.support.waiting import until_in_loop


def soon(failed):
    """A retry policy for tests."""
    return 0.01


def leased(server, name):
    return [item.contents for item in server.items(name) if item.state.name == "LEASED"]


async def test_many_calls_share_a_connection_and_keep_their_order(face, server, url, name):
    async with face.client(url) as client:
        queue = client.queue()
        await client.limits()
        await asyncio.gather(*[queue.add(b"%d" % each) for each in range(60)])
        found = [item.contents for item in server.items(name)]
        if face.name == "sync":
            # Each call has a thread of its own here.
            found.sort(key=int)
        assert found == [b"%d" % each for each in range(60)]
        assert server.drop_connections() == 1


async def test_calls_do_not_wait_for_a_poll(face, server, url, name):
    async with face.client(url) as client:
        polling = asyncio.ensure_future(client.queue().poll())
        await client.limits()
        await client.queue().add(b"x")
        assert [item.contents for item in await polling] == [b"x"]


async def test_a_lost_connection_is_made_again(face, server, url):
    delays = []

    def policy(failed):
        delays.append(failed)
        return 0.01

    async with face.client(url, retry_policy=policy) as client:
        await client.limits()
        assert server.drop_connections() >= 1
        await client.limits()
        with server.down():
            await until_in_loop(lambda: len(delays) >= 2)
            calling = asyncio.ensure_future(client.queue().add(b"x"))
            await until_in_loop(lambda: len(delays) >= 4)
            assert not calling.done()
        assert len(await calling) == 1
        # The count begins again once the server has answered.
        assert delays[0] == 1 and max(delays) >= 3


def raises(failed):
    raise ZeroDivisionError("division by zero")


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (lambda _: None, "the result of retry_policy is None; it must be seconds, at least 0"),
        (lambda _: -1, "the result of retry_policy is -1 (int)"),
        (lambda _: float("nan"), "the result of retry_policy is nan (float)"),
        (raises, "retry_policy raised ZeroDivisionError: division by zero"),
    ],
)
async def test_a_wrong_retry_policy_is_the_error_of_the_calls_that_wait(face, server, url, policy, said):
    async with face.client(url, retry_policy=policy) as client:
        with server.refuse_connections(), pytest.raises(InvalidRequest, match=re.escape(said)):
            await client.queue().add(b"x")
        # The default policy stands in.
        assert len(await client.queue().add(b"x")) == 1


async def test_a_call_in_flight_may_have_happened(face, server, url, name):
    async with face.client(url, retry_policy=soon) as client:
        await client.queue().add(b"x")
        (item,) = (await client.queue().poll()).items
        with server.lose_next_reply("remove"), pytest.raises(OutcomeUnknown, match="the call's outcome is unknown"):
            await item.remove()
        assert await client.queue().remove(item.id, item.lease) is False
    server.assert_empty(name)


async def test_an_add_with_a_request_id_is_sent_again_and_adds_once(face, server, url, name):
    async with face.client(url, retry_policy=soon) as client:
        with server.lose_next_reply("add"):
            added = await client.queue().add_items(new_item(b"x"), request_id=os.urandom(16))
        assert [item.id for item in server.items(name)] == list(added.ids)


async def test_all_adds_are_sent_again_if_that_is_chosen(face, server, url, name):
    async with face.client(f"{url}?resend_adds=true", retry_policy=soon) as client:
        with server.lose_next_reply("add"):
            ids = await client.queue().add(b"x")
        assert [item.id for item in server.items(name)] == ids
    async with face.client(url, retry_policy=soon) as client:
        with server.lose_next_reply("add"), pytest.raises(OutcomeUnknown):
            await client.queue().add(b"y")


async def test_a_poll_is_sent_again(face, server, url, name):
    async with face.client(url, retry_policy=soon) as client:
        polling = asyncio.ensure_future(client.queue().poll())
        await client.limits()
        server.drop_connections()
        await client.limits()
        await client.queue().add(b"x")
        assert [item.contents for item in await polling] == [b"x"]


async def test_a_poll_that_exceeds_its_time_leaves_nothing_leased(face, server, url, name):
    async with face.client(url) as client:
        with pytest.raises(CallTimedOut):
            await client.queue().poll(timeout_ms=50)
        await client.queue().add(b"x")
        assert leased(server, name) == []
        # Its items are on their way when the time is over.
        await client.limits()
        with server.hanging():
            polling = asyncio.ensure_future(client.queue().poll(timeout_ms=50))
            with pytest.raises(CallTimedOut):
                await polling
        await client.ping()
        await until_in_loop(lambda: leased(server, name) == [])
        (item,) = (await client.queue().poll(wait_ms=0)).items
        assert (item.contents, item.losses) == (b"x", 0)


async def test_a_cancelled_poll_leaves_nothing_leased(cancelling_face, server, url, name):
    async with cancelling_face.client(url) as client:
        await client.limits()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.queue().poll()
        await client.queue().add(b"x")
        assert leased(server, name) == []
        with server.hanging(), pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.queue().poll()
        await client.ping()
        await until_in_loop(lambda: leased(server, name) == [])
        (item,) = (await client.queue().poll(wait_ms=0)).items
        assert (item.attempt, item.losses) == (1, 0)


async def test_a_client_that_is_closed_while_it_polls_leaves_nothing_leased(face, server, url, name):
    async with face.client(url) as client:
        polling = asyncio.ensure_future(client.queue().poll())
        # A poll in a thread of its own may be sent later than calls that are made after it.
        while not (await client.control(name).stats()).waiting_polls:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(OutcomeUnknown, match=r"outcome is unknown: the client was closed$"):
            await polling
    async with face.client(url) as client:
        await client.queue().add(b"x")
        assert leased(server, name) == []


async def test_a_kept_session_outlives_a_lost_connection(face, server, url, name):
    async with face.client(url, retry_policy=soon) as client:
        async with client.session() as session:
            assert session.state is SessionState.ATTACHED
            await client.queue().add(b"1", b"2")
            first = await client.queue().poll(session=session)
            assert first.session and first.deadline == 0
            server.drop_connections()
            second = await client.queue().poll(session=session)
            assert second.session
            server.advance(20)
            assert sorted(leased(server, name)) == [b"1", b"2"]
            async with first as item:
                assert item.contents == b"1"
        # The second item was not settled: it goes back with the session.
        assert [(item.contents, item.state.name) for item in server.items(name)] == [(b"2", "READY")]


async def test_a_kept_session_says_which_leases_are_lost(face, server, url, name):
    lost = []
    async with face.client(url, retry_policy=soon) as client, client.session(on_lost=lost.append) as session:
        await client.queue().add(b"x")
        batch = await client.queue().poll(session=session)
        assert server.end_lease(batch)
        server.drop_connections()
        await until_in_loop(lambda: lost)
        assert lost == [batch.lease]


async def test_a_loop_leaves_out_items_whose_lease_its_session_has_lost(face, server, url, name):
    lost = []
    async with face.client(url, retry_policy=soon) as client, client.session(on_lost=lost.append) as session:
        await client.queue().add(b"1", b"2")
        items = aiter(client.queue().items(2, session=session))
        first = await anext(items)
        assert server.end_lease(first)
        server.drop_connections()
        await until_in_loop(lambda: lost)
        second = await anext(items)
        assert (first.losses, second.losses) == (0, 1)
        assert await second.remove()
        await items.close()


async def test_an_extension_of_a_lease_loses_no_item_of_the_stock(face, url):
    async with face.client(url) as client, client.session() as session:
        queue = client.queue()
        await queue.add(b"1", b"2", b"3")
        items = aiter(queue.items(3, session=session))
        first = await anext(items)
        assert await first.extend(60_000)
        others = [await anext(items), await anext(items)]
        assert [each.contents for each in others] == [b"2", b"3"]
        for each in (first, *others):
            assert await each.remove()
        await items.close()


async def test_a_closed_session_names_itself(face, url):
    async with face.client(url) as client:
        async with client.session() as session:
            pass
        assert session.state is SessionState.CLOSED
        with pytest.raises(Exception, match="session is closed"):
            await client.queue().poll(session=session)


async def test_a_server_that_is_away_is_logged_once(face, server, url, caplog):
    if face.name == "twisted":
        pytest.skip("Twisted programs have its log")
    async with face.client(url, retry_policy=soon) as client:
        with server.down():
            adding = asyncio.ensure_future(client.queue().add(b"x"))
            await until_in_loop(lambda: caplog.records)
            await asyncio.sleep(0.05)
        await adding
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("queueber")]
    assert line == f"cannot connect to {url}: Connection refused; trying again"
