"""Items as context managers and iteration: what only Twisted programs meet.  The rest is in `tests/faces`."""

import pytest
from joined import Joined
from twisted.internet.defer import CancelledError, Deferred

from queueber.client import OutcomeUnknown
from queueber.client_core.delivery import EXIT_MS
from tests.support.forks import in_child


@pytest.fixture
def joined():
    return Joined()


@pytest.fixture
def queue(joined):
    return joined.client().queue("mail")


def run(joined, coroutine):
    """Return the result of *coroutine*, which waits for the server alone."""
    return joined.result(Deferred.fromCoroutine(coroutine))


def rest(joined, queue):
    """Return the contents that can be polled now, and hold them."""
    return [item.contents for item in joined.result(queue.poll(100, wait_ms=0))]


def test_a_cancellation_defers_the_item(joined, queue):
    joined.result(queue.add(b"x"))

    async def work():
        async with await queue.poll():
            await Deferred()

    working = Deferred.fromCoroutine(work())
    joined.settle()
    working.cancel()
    with pytest.raises(CancelledError):
        joined.result(working)
    (item,) = joined.result(queue.poll(wait_ms=0))
    assert (item.attempt, item.failures) == (1, 0)


def test_a_cancellation_that_the_server_does_not_answer_takes_ten_seconds(joined, queue):
    joined.result(queue.add(b"x"))

    async def work():
        async with await queue.poll():
            await Deferred()

    working = Deferred.fromCoroutine(work())
    joined.settle()
    working.cancel()
    failures = []
    working.addErrback(failures.append)
    joined.server.reactor.advance(EXIT_MS / 1_000 - 1)
    assert not failures
    joined.server.reactor.advance(1)
    (found,) = failures
    assert found.check(CancelledError)
    assert "no answer within 10,000 ms" in found.value.__notes__[0]


@pytest.mark.parametrize("method", ["remove", "fail", "defer", "reject"])
def test_leaving_an_item_that_was_settled_inside_is_no_error(joined, queue, method):
    joined.result(queue.add(b"x"))

    async def work():
        async with await queue.poll() as item:
            await getattr(item, method)()

    run(joined, work())


@pytest.mark.parametrize("method", ["remove", "fail", "defer", "reject"])
def test_an_item_that_was_settled_inside_is_left_as_it_is(joined, queue, method):
    joined.result(queue.add(b"x"))

    async def work():
        async with await queue.poll() as item:
            await getattr(item, method)()
            raise ValueError("after that")

    with pytest.raises(ValueError, match="after that"):
        run(joined, work())
    joined.pass_time(10)
    found = joined.result(queue.poll(wait_ms=0)).items
    facts = [(item.attempt, item.failures, item.last_error) for item in found]
    assert facts == {"remove": [], "reject": [], "fail": [(2, 1, "")], "defer": [(1, 0, "")]}[method]
    assert len(joined.result(queue.dead_letters().poll(wait_ms=0))) == (method == "reject")


def test_an_exception_keeps_its_place_when_the_item_cannot_be_failed(joined):
    queue = joined.client(attempts=1).queue("mail")
    joined.result(queue.add(b"x"))

    async def work():
        async with await queue.poll():
            joined.refusing = True
            joined.break_link()
            raise ValueError("broken")

    working = Deferred.fromCoroutine(work())
    joined.settle()
    joined.server.reactor.advance(1)
    with pytest.raises(ValueError, match="broken") as caught:
        joined.result(working)
    (note,) = caught.value.__notes__
    assert note.startswith("The item was not settled, and is redelivered when its lease ends: cannot connect: ")


def test_a_coroutine_that_is_closed_defers_its_item(joined, queue):
    """Without waiting for it, which Python forbids there."""
    joined.result(queue.add(b"x"))

    async def work():
        async with await queue.poll():
            await Deferred()

    working = work()
    running = Deferred.fromCoroutine(working)
    joined.settle()
    assert not running.called
    working.close()
    assert rest(joined, queue) == []
    joined.settle()
    assert rest(joined, queue) == [b"x"]


def test_a_stocked_item_whose_lease_ends_is_left_out(joined, queue):
    joined.result(queue.add(b"1", b"2"))
    items = queue.items(2, lease_ms=1_000)
    first = joined.result(Deferred.fromCoroutine(items.__anext__()))
    assert first.contents == b"1"
    joined.pass_time(2)
    found = [joined.result(Deferred.fromCoroutine(items.__anext__())) for _ in range(2)]
    assert [(item.contents, item.attempt) for item in found] == [(b"1", 2), (b"2", 2)]
    joined.result(items.close())


def test_a_cancelled_wait_for_the_next_item_leaves_nothing_leased(joined, queue):
    items = queue.items()
    waiting = Deferred.fromCoroutine(items.__anext__())
    joined.settle()
    waiting.cancel()
    with pytest.raises(CancelledError):
        joined.result(waiting)
    joined.result(queue.add(b"x"))
    assert rest(joined, queue) == [b"x"]


def test_closing_waits_until_the_items_of_a_cancelled_poll_are_given_back(joined):
    """Bytes that the client does not read any more would leave them leased."""
    client = joined.client()
    queue = client.queue("mail")
    joined.result(queue.add(b"x"))
    polling = queue.poll(lease_ms=3_600_000)
    _, transport, peer, peer_transport = joined.links[0]
    joined.server.reactor.advance(0)
    peer.dataReceived(transport.value())
    transport.clear()
    joined.server.settle()
    polling.cancel()
    polling.addErrback(lambda failure: failure.trap(CancelledError))
    assert joined.server.broker.stats().leases == 1
    assert peer_transport.value()
    closing = client.close()
    assert not closing.called
    joined.result(closing)
    assert joined.server.broker.stats().leases == 0


def test_the_error_of_a_poll_ends_the_iteration(joined):
    client = joined.client()
    items = client.queue("mail").items()
    waiting = Deferred.fromCoroutine(items.__anext__())
    joined.settle()
    client.close()
    with pytest.raises(OutcomeUnknown):
        joined.result(waiting)


def test_a_forked_process_leaves_the_items_of_its_parent_alone(joined, queue):
    joined.result(queue.add(b"x"))
    (item,) = joined.result(queue.poll())

    def child():
        said = []
        for settle in (item.remove, item.fail, item.defer, item.reject, lambda: item.extend(1)):
            settle().addErrback(lambda failure: said.append(failure.type.__name__))
        for error in (None, GeneratorExit(), OSError("no disk")):
            with pytest.raises(StopIteration):
                item.__aexit__(error and type(error), error, None).send(None)
        return [said, item.settled]

    assert in_child(child) == [["InvalidRequest"] * 5, False]
    assert joined.result(item.remove())
