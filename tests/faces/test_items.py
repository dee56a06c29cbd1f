"""Items and batches as context managers, and the iteration over a queue, over each face."""

import asyncio
import gc

import pytest
from twisted.internet.defer import CancelledError

from queueber.client_core.errors import LeaseLost
from queueber.errors import InvalidRequest
from tests.support.waiting import until_in_loop


def states(server, name):
    return [(item.contents, item.state.name) for item in server.items(name)]


async def test_success_removes(face, server, url, name):
    async with face.client(url) as client:
        await client.queue().add(b"x")
        async with await client.queue().poll() as item:
            assert item.contents == b"x"
        assert item.settled
    server.assert_empty(name)


async def test_an_exception_fails_with_its_text_and_goes_on(face, server, url, name):
    server.configure(name, backoff_base_ms=1)
    async with face.client(url) as client:
        await client.queue().add(b"x")
        with pytest.raises(ZeroDivisionError) as raised:
            async with await client.queue().poll():
                raise ZeroDivisionError("one by none")
        assert not hasattr(raised.value, "__notes__")
        server.advance(10)
        (item,) = (await client.queue().poll(wait_ms=0)).items
        assert (item.failures, item.last_error) == (1, "ZeroDivisionError: one by none")


CANCELLATIONS = {
    "twisted": [CancelledError(), asyncio.CancelledError(), SystemExit(1)],
    "aio": [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(1)],
    "sync": [KeyboardInterrupt(), SystemExit(1)],
}


async def test_a_cancellation_returns_the_item_uncounted(face, server, url, name):
    async with face.client(url) as client:
        await client.queue().add(b"x")
        for error in CANCELLATIONS[face.name]:
            batch = await client.queue().poll()
            await batch.__aenter__()
            await batch.__aexit__(type(error), error, None)
            (item,) = server.items(name)
            assert (item.state.name, item.failures, item.attempts) == ("READY", 0, 0)
            assert not hasattr(error, "__notes__")


async def test_the_text_of_an_exception_is_cut_to_what_an_item_can_carry(face, server, url, name):
    async with face.client(url) as client:
        await client.queue().add(b"x")
        with pytest.raises(ValueError, match="é"):
            async with await client.queue().poll():
                raise ValueError("é" * 10_000)
        server.advance(3600)
        (item,) = (await client.queue().poll(wait_ms=0)).items
        assert 4_000 < len(item.last_error.encode()) <= 4_096


async def test_what_the_program_has_settled_stays_so(face, server, url, name):
    async with face.client(url) as client:
        await client.queue().add(b"x")
        item = (await client.queue().poll()).items[0]
        await item.__aenter__()
        await item.reject("no good")
        await item.__aexit__(KeyError, KeyError(), None)
        (dead,) = server.dead(name)
        assert dead.last_error == "no good"


async def test_success_after_the_end_of_the_lease_is_an_error(face, server, url, name):
    async with face.client(url) as client:
        await client.queue().add(b"x")
        with pytest.raises(LeaseLost, match="another worker"):
            async with await client.queue().poll(lease_ms=1_000):
                server.advance(2)
        (item,) = (await client.queue().poll(wait_ms=0)).items
        assert item.losses == 1


async def test_a_failure_after_the_end_of_the_lease_has_a_note(face, server, url, name):
    async with face.client(url) as client:
        await client.queue().add(b"x")
        batch, error = await client.queue().poll(lease_ms=1_000), KeyError("x")
        await batch.__aenter__()
        server.advance(2)
        await batch.__aexit__(KeyError, error, None)
        (note,) = error.__notes__
        assert "lease" in note


async def test_without_items_a_batch_enters_as_none(face, url):
    async with face.client(url) as client, await client.queue().poll(wait_ms=0) as item:
        assert item is None


async def test_a_batch_of_several_is_not_entered(face, server, url, name):
    async with face.client(url) as client:
        await client.queue().add(b"1", b"2")
        batch = await client.queue().poll(2)
        with pytest.raises(InvalidRequest, match="enter each of them"):
            async with batch:
                raise AssertionError
        for item in batch:
            async with item:
                pass
    server.assert_empty(name)


async def test_a_loop_takes_one_item_at_a_time(face, server, url, name):
    async with face.client(url) as client:
        await client.queue().add(b"1", b"2", b"3")
        seen = []
        async for item in client.queue():
            async with item:
                seen.append(item.contents)
                assert [state for _, state in states(server, name)].count("LEASED") == 1
            if len(seen) == 3:
                break
        assert seen == [b"1", b"2", b"3"]
    server.assert_empty(name)


async def test_a_loop_takes_items_ahead_and_gives_them_back(face, server, url, name):
    async with face.client(url) as client:
        await client.queue().add(*[b"%d" % each for each in range(10)])
        async with client.queue().items(4) as items:
            async for item in items:
                async with item:
                    assert 3 <= [state for _, state in states(server, name)].count("LEASED") <= 5
                if item.contents == b"4":
                    break
        assert states(server, name) == [(b"%d" % each, "READY") for each in range(5, 10)]


async def test_a_loop_that_is_left_gives_back_what_it_has(face, server, url, name):
    async with face.client(url) as client:
        await client.queue().add(*[b"%d" % each for each in range(5)])
        async for item in client.queue().items(4):
            await item.remove()
            break
        gc.collect()
        await until_in_loop(lambda: {state for _, state in states(server, name)} == {"READY"})
        # Its poll ended, too.
        await client.queue().add(b"new")
        assert len(states(server, name)) == 5 and {state for _, state in states(server, name)} == {"READY"}


async def test_a_prefetch_out_of_range_is_one_sentence(face, url):
    async with face.client(url) as client:
        for prefetch, said in ((-1, "prefetch is -1 items; the least is 0"), (1_001, "the limit is 1,000")):
            with pytest.raises(InvalidRequest, match=said):
                client.queue().items(prefetch)
        with pytest.raises(InvalidRequest, match="lease_ms is 0 ms; the least is 1"):
            client.queue().items(lease_ms=0)
