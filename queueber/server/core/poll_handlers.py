"""
The methods that wait for items: `poll` and `pollAny`.

The broker decides at once that a poll waits.  Its reply comes later, from the
dispatcher: with items, without any when its wait is over, or not at all.
"""

from functools import partial
from typing import Any, Final

from attrs import define

from queueber import api, rpc
from queueber.broker import Broker, Queue
from queueber.errors import QueueberError
from queueber.limits import Limits
from queueber.server.core.clock import QueueClock
from queueber.server.core.committer import Committer
from queueber.server.core.dispatcher import Dispatcher, EndedPoll
from queueber.server.core.replies import Methods, Replies, ReplySink
from queueber.server.core.views import delivery_facts
from queueber.units import SpanMs, WallMs

_new: Final = tuple.__new__
"""Makes a named tuple out of a plain one, in a third of the time that its class takes."""

_NO_WAIT: Final = SpanMs(0)


@define(eq=False)
class PollHandlers:
    """Carries polls to the broker and the dispatcher, and their deliveries back."""

    _broker: Broker
    _committer: Committer
    _dispatcher: Dispatcher
    _clock: QueueClock
    _limits: Limits
    _replies: Replies

    @property
    def methods(self) -> Methods:
        """The handlers of the methods."""
        return {
            (api.QUEUE_INTERFACE_ID, api.POLL): self._poll,
            (api.BROKER_INTERFACE_ID, api.POLL_ANY): self._poll_any,
        }

    def _poll(self, sink: ReplySink, queue: Queue, calls: rpc.Calls) -> None:
        began = self._clock.monotonic()
        requests = calls.requests
        if not isinstance(requests, list):
            requests = api.read_poll_requests(calls, self._limits)
        now, take = self._clock.now(), partial(self._return_polls, sink)
        for answer, request in zip(calls.answers, requests, strict=True):
            try:
                waiter = self._broker.poll(
                    queue,
                    wanted=request.num_items,
                    lease_duration=request.lease,
                    wait=_NO_WAIT if request.no_wait else request.wait,
                    peer=sink.peer,
                    now=now,
                    session=request.session,
                )
            except QueueberError as why:
                self._replies.refuse(sink, answer, why, "poll")
                continue
            except Exception as why:
                self._committer.bug(why)
                raise
            sink.waits(answer, waiter)
            self._dispatcher.wait(waiter, answer, began, take)

    def _poll_any(self, sink: ReplySink, root: Any, calls: rpc.Calls) -> None:  # noqa: ANN401, ARG002
        began = self._clock.monotonic()
        queues, strict, request = api.read_poll_any_request(calls.params, self._limits)
        queue, *others = [self._broker.queue(name) for name, _ in queues]
        try:
            waiter = self._broker.poll(
                queue,
                wanted=request.num_items,
                lease_duration=request.lease,
                wait=_NO_WAIT if request.no_wait else request.wait,
                peer=sink.peer,
                now=self._clock.now(),
                session=request.session,
                others=others,
                weights=() if strict else [weight for _, weight in queues],
            )
        except QueueberError:
            raise
        except Exception as why:
            self._committer.bug(why)
            raise
        sink.waits(calls.answer, waiter)
        self._dispatcher.wait(waiter, calls.answer, began, partial(self._return_polls, sink))

    def _return_polls(self, sink: ReplySink, polls: list[EndedPoll]) -> None:
        """Return the replies of *polls*, which have ended together."""
        now, seconds = self._clock.monotonic(), self._replies.stats.seconds["poll"]
        answers: list[rpc.AnswerId] = []
        responses: list[api.PollResponse] = []
        for answer, arrived_at, delivery in polls:
            if delivery is None:
                sink.canceled(answer)
            elif delivery.error is not None:
                self._replies.refuse(sink, answer, delivery.error, "poll")
            else:
                seconds.observe(now - arrived_at)
                items: list[api.PolledItem] = []
                has_facts = False
                for key, contents, added_at, attempts, facts in delivery.items:
                    items.append(_new(api.PolledItem, (contents, key.id, attempts + 1, added_at)))
                    if attempts or facts is not None:
                        has_facts = True
                all_facts = tuple(map(delivery_facts, delivery.items)) if has_facts else ()
                lease = delivery.lease
                in_session = lease is not None and lease.session != b""
                lease_id = b"" if lease is None else lease.id
                deadline = WallMs(0) if lease is None or in_session else lease.deadline
                response = _new(api.PollResponse, (items, lease_id, deadline, in_session, all_facts))
                if delivery.waiter.choice is not None:
                    name = delivery.waiter.queue.name if items else ""
                    sink.results([answer], [api.write_poll_any_response(api.PollAnyResponse(name, response))])
                    continue
                answers.append(answer)
                responses.append(response)
        if answers:
            sink.results(answers, api.write_poll_responses(responses))
