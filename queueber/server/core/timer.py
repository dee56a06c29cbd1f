"""Timers that call a function at regular intervals."""

from collections.abc import Callable

from twisted.application.internet import TimerService


def periodic_timer(reactor: object, seconds: float, function: Callable[[], object]) -> TimerService:
    """
    Return a service that calls *function* once it is started, and then every *seconds* of the clock *reactor*.

    A call that returns a Deferred is not repeated before that has fired.  An
    error of *function* is logged and ends the timer.
    """
    timer = TimerService(seconds, function)
    timer.clock = reactor
    return timer
