"""Interrupted calls give back what they have taken, at whatever moment the interrupt comes."""

import os
import signal
import threading
import time

import pytest

from queueber.client_core.errors import OutcomeUnknown
from tests.support.waiting import until


class Interrupt(Exception):
    """Raised by a signal handler, as `KeyboardInterrupt` is."""


@pytest.fixture
def alarm():
    """A function that has an interrupt come after some seconds, in the main thread."""

    def interrupt(*_):
        raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def states(server, queue):
    return [item.state.name for item in server.items(queue.name)]


def settled(server, queue, count):
    """Wait until *count* items are there, and all are ready."""
    until(lambda: states(server, queue) == ["READY"] * count)


def test_an_interrupted_poll_leaves_nothing_leased(server, queue, alarm):
    alarm(0.05)
    with pytest.raises(Interrupt):
        queue.poll()
    queue.add(b"x")
    assert states(server, queue) == ["READY"]


def test_ctrl_c_ends_a_poll(server, queue):
    threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        queue.poll()
    queue.add(b"x")
    assert states(server, queue) == ["READY"]


def test_an_interrupt_at_any_moment_of_a_poll_leaves_nothing_leased(server, queue, alarm):
    """The items come at the same time as the interrupt, sooner or later."""
    received = 0
    for each in range(60):
        queue.add(b"x")
        batch = None
        try:
            alarm(0.000_05 * each + 0.000_01)
            batch = queue.poll()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupt:
            pass
        if batch is not None:
            received += 1
            batch.items[0].remove()
        else:
            settled(server, queue, 1)
            queue.poll().items[0].remove()
    assert received > 0


def test_an_interrupted_loop_gives_back_what_it_has(server, queue, alarm):
    queue.add(*[b"x"] * 10)
    items = queue.items(5)
    with items:
        assert next(items).contents == b"x"
        alarm(0.05)
        with pytest.raises(Interrupt):
            time.sleep(30)
    # The one in use was neither settled nor entered.
    assert states(server, queue).count("LEASED") == 1


def test_an_interrupted_loop_that_waits_leaves_nothing_leased(server, queue, alarm):
    items = iter(queue)
    alarm(0.05)
    with pytest.raises(Interrupt):
        next(items)
    queue.add(b"x")
    assert states(server, queue) == ["READY"]
    # The iteration goes on.
    assert next(items).contents == b"x"


def test_an_interrupted_block_returns_its_item_uncounted(server, queue):
    queue.add(b"x")
    with pytest.raises(KeyboardInterrupt), queue.poll():
        signal.raise_signal(signal.SIGINT)
    (item,) = server.items(queue.name)
    assert (item.state.name, item.failures) == ("READY", 0)


def test_other_calls_go_on_after_an_interrupt(server, queue, alarm):
    queue.add(b"w")
    with server.hanging():
        alarm(0.05)
        with pytest.raises(Interrupt):
            queue.add(b"x")
    settled(server, queue, 2)
    queue.add(b"y")
    assert len(server.items(queue.name)) == 3


def test_a_signal_handler_may_call_and_close(server, client, queue):
    """The handler runs within the wait of the main thread."""

    def stop(*_):
        queue.add(b"from the handler")
        client.close()

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGUSR1]).start()
        with pytest.raises(OutcomeUnknown, match="the client was closed"):
            queue.dead_letters().poll()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert states(server, queue) == ["READY"]
