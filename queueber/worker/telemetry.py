"""
Traces and metrics by OpenTelemetry's conventions for messaging, when `opentelemetry-api` is installed.

| Span | kind | from, to | linked with |
|---|---|---|---|
| `send QUEUE` | PRODUCER | `publishing` is entered and left | |
| `receive QUEUE` | CLIENT | a poll is sent, its items arrive | |
| `process QUEUE` | CONSUMER | a handler begins and ends | the span that sent the item, by its headers |
| `settle QUEUE` | CLIENT | a settle is sent and answered | the spans that processed its items |

A settle of items of several queues names none.  An item that is prefetched has
no span until its handler begins.  Only this module imports OpenTelemetry, and
none of it is imported before it is used.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, Self

from queueber import __version__
from queueber.values import Action, Settlement, id_text
from queueber.worker.items import WorkItem
from queueber.worker.verdicts import Decision, Verdict

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span

LOG = logging.getLogger("queueber.worker")

SYSTEM: Final = "queueber"

_API_MODULES: Final = ("opentelemetry.trace", "opentelemetry.metrics")

_LINKS_MAX = 128
"""Links of a span that SDKs keep by default."""

_NS = 1_000_000_000


def installed() -> bool:
    """Return whether `opentelemetry-api` is installed."""
    try:
        import opentelemetry.trace  # noqa: F401, PLC0415
    except ImportError:
        return False
    return True


def is_recorded() -> bool:
    """Return whether the program has a provider of traces or of metrics; those of the API record nothing."""
    from opentelemetry import metrics, trace  # noqa: PLC0415

    providers = (trace.get_tracer_provider(), metrics.get_meter_provider())
    return not all(type(each).__module__.startswith(_API_MODULES) for each in providers)


class Telemetry:
    """
    The spans and metrics of one server's queues.

    Providers are looked up at each poll, so that a program may configure them after
    it has made its worker.
    """

    def __init__(self, server: tuple[str, int] | None = None, *, parent: bool = False) -> None:
        """
        *server* is the host and port.

        With *parent* a `process` span is a child of the span that sent its item, instead of being linked with it.
        """
        self._parent = parent
        self._is_recorded = True
        """Whether there are providers, as of the last poll; True before the first."""

        self._common: dict[str, Any] = {"messaging.system": SYSTEM}
        if server is not None:
            self._common |= {"server.address": server[0], "server.port": server[1]}

    def _attributes(self, name: str, kind: str, queue: str) -> dict[str, Any]:
        """Return the attributes of an operation *name* of some *kind* on *queue*; empty: on several."""
        return {
            **self._common,
            **({"messaging.destination.name": queue} if queue else {}),
            "messaging.operation.name": name,
            "messaging.operation.type": kind,
        }

    @contextmanager
    def publishing(self, queue: str, messages: int = 1) -> Iterator[dict[str, bytes]]:
        """Trace the adding of *messages* items; yield the headers that carry the context."""
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        attributes = self._attributes("send", "send", queue)
        batch = {"messaging.batch.message_count": messages} if messages > 1 else {}
        began = time.monotonic()
        try:
            with tracer().start_as_current_span(
                f"send {queue}", kind=SpanKind.PRODUCER, attributes={**attributes, **batch}
            ) as span:
                try:
                    yield context_headers()
                except BaseException as why:
                    span.set_attribute("error.type", _type_of(why))
                    raise
        except BaseException as why:
            attributes["error.type"] = _type_of(why)
            raise
        finally:
            found = meters()
            found.sent.add(messages, attributes)
            found.operation.record(time.monotonic() - began, attributes)

    def processing(self, item: WorkItem) -> _Processing | _Unrecorded:
        """Return a context that traces the run of a handler on *item*."""
        # Without a provider the API still makes the sender's context the current one, and the handler may pass it on.
        if not self._is_recorded and not self._parent:
            return _UNRECORDED
        return _Processing(item, self._attributes("process", "process", item.queue), partial(self._origin, item))

    def _origin(self, item: WorkItem) -> tuple[Context | None, Sequence[Link]]:
        """Return the context and the links of the span that processes *item*."""
        from opentelemetry import propagate, trace  # noqa: PLC0415

        carrier = {name.lower(): value.decode(errors="replace") for name, value in item.headers.items()}
        context = propagate.extract(carrier)
        sent_by = trace.get_current_span(context).get_span_context()
        if not sent_by.is_valid:
            return None, ()
        return (context, ()) if self._parent else (None, [trace.Link(sent_by)])

    def received(self, queue: str, items: int, seconds: float) -> None:
        """Record a poll that brought *items* items and ends now, *seconds* after it was sent."""
        with _harmless():
            self._is_recorded = is_recorded()
            if self._is_recorded:
                self._received(queue, items, seconds)

    def _received(self, queue: str, items: int, seconds: float) -> None:
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        attributes = self._attributes("receive", "receive", queue)
        now = time.time_ns()
        span = tracer().start_span(
            f"receive {queue}",
            kind=SpanKind.CLIENT,
            attributes={**attributes, "messaging.batch.message_count": items},
            start_time=now - int(seconds * _NS),
        )
        span.end(now)
        meters().operation.record(seconds, attributes)

    def settled(
        self, entries: Sequence[Settlement], items: Sequence[WorkItem], seconds: float, error: Exception | None = None
    ) -> None:
        """Record a settle of *items* that ends now, *seconds* after it was sent, with its *error* if it failed."""
        if self._is_recorded:
            with _harmless():
                self._settled(entries, items, seconds, error)

    def _settled(
        self, entries: Sequence[Settlement], items: Sequence[WorkItem], seconds: float, error: Exception | None
    ) -> None:
        from opentelemetry.trace import Link, SpanKind, StatusCode  # noqa: PLC0415

        actions = {entry.action for entry in entries}
        name = actions.pop().name.lower() if len(actions) == 1 else "settle"
        queues = {each.queue for each in items}
        queue = queues.pop() if len(queues) == 1 else ""
        attributes = self._attributes(name, "settle", queue)
        if error is not None:
            attributes["error.type"] = _type_of(error)
        contexts = (each.span_context for each in items)
        now = time.time_ns()
        span = tracer().start_span(
            f"{name} {queue}".rstrip(),
            kind=SpanKind.CLIENT,
            links=[Link(each) for each in contexts if each is not None][:_LINKS_MAX],
            attributes={**attributes, "messaging.batch.message_count": len(entries)},
            start_time=now - int(seconds * _NS),
        )
        if error is not None:
            span.set_status(StatusCode.ERROR)
        span.end(now)
        meters().operation.record(seconds, attributes)


class _Processing:
    """The span of one run of a handler, which is current in its context.  None of its faults reaches the handler."""

    def __init__(
        self,
        item: WorkItem,
        attributes: dict[str, Any],
        origin: Callable[[], tuple[Context | None, Sequence[Link]]],
    ) -> None:
        self._item = item
        self._attributes = attributes
        self._origin = origin
        self._began = time.monotonic()
        self._context: AbstractContextManager[Span] | None = None
        self._span: Span | None = None

    def __enter__(self) -> Self:
        with _harmless():
            self._enter()
        return self

    def _enter(self) -> None:
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        item = self._item
        context, links = self._origin()
        meters().consumed.add(1, self._attributes)
        current = tracer().start_as_current_span(
            f"process {item.queue}",
            context=context,
            kind=SpanKind.CONSUMER,
            links=links,
            attributes={
                **self._attributes,
                "messaging.message.id": id_text(item.id),
                "messaging.message.body.size": len(item.contents),
                "messaging.queueber.attempt": item.attempt,
            },
        )
        self._span, self._context = current.__enter__(), current
        item.span_context = self._span.get_span_context()

    def ended(self, verdict: Verdict | None, error: BaseException | None) -> None:
        """Note how the handler ended."""
        if self._span is not None:
            with _harmless():
                self._ended(self._span, verdict, error)

    def _ended(self, span: Span, verdict: Verdict | None, error: BaseException | None) -> None:
        from opentelemetry.trace import StatusCode  # noqa: PLC0415

        action = "defer" if verdict is None else verdict.action.name.lower()
        span.set_attribute("messaging.queueber.outcome", action)
        if error is None or (verdict is not None and verdict.action in (Action.REMOVE, Action.DEFER)):
            return
        self._attributes["error.type"] = _type_of(error)
        span.set_attribute("error.type", _type_of(error))
        span.set_status(StatusCode.ERROR, str(error)[:200])
        if not isinstance(error, Decision):
            span.record_exception(error)

    def __exit__(self, *_: object) -> None:
        with _harmless():
            meters().process.record(time.monotonic() - self._began, self._attributes)
        if self._context is not None:
            with _harmless():
                self._context.__exit__(None, None, None)


class _Unrecorded:
    """A handler's run without a span."""

    def __enter__(self) -> Self:
        return self

    def ended(self, verdict: Verdict | None, error: BaseException | None) -> None:
        """Ignore how the handler ended."""

    def __exit__(self, *_: object) -> None:
        pass


_UNRECORDED: Final = _Unrecorded()


@contextmanager
def _harmless() -> Iterator[None]:
    """Log an exception of the program's own exporters and processors, which must not end the worker."""
    try:
        yield
    except Exception:
        LOG.exception("traces or metrics failed; the worker continues")


class _Meters:
    """The metrics of the conventions."""

    def __init__(self) -> None:
        from opentelemetry import metrics  # noqa: PLC0415

        meter = metrics.get_meter("queueber", __version__)
        self.sent = meter.create_counter(
            "messaging.client.sent.messages",
            "{message}",
            "Number of messages producer attempted to send to the broker.",
        )
        self.consumed = meter.create_counter(
            "messaging.client.consumed.messages",
            "{message}",
            "Number of messages that were delivered to the application.",
        )
        self.operation = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of messaging operation initiated by a producer or consumer client.",
        )
        self.process = meter.create_histogram("messaging.process.duration", "s", "Duration of processing operation.")


@cache
def meters() -> _Meters:
    """Return the metrics."""
    return _Meters()


@cache
def tracer() -> Any:  # noqa: ANN401
    """Return the maker of spans."""
    from opentelemetry import trace  # noqa: PLC0415

    return trace.get_tracer("queueber", __version__)


def context_headers() -> dict[str, bytes]:
    """Return the headers that carry the context of the current span; none without one, or without OpenTelemetry."""
    if not installed():
        return {}
    from opentelemetry import context, propagate  # noqa: PLC0415

    if not context.get_current():
        # An empty context, as of a program that traces nothing, is looked at in a tenth of the time.
        return {}
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return {name: value.encode() for name, value in carrier.items()}


@contextmanager
def publishing(
    queue: str, messages: int = 1, *, headers: Mapping[str, bytes] | None = None, server: tuple[str, int] | None = None
) -> Iterator[dict[str, bytes]]:
    """
    Trace the adding of *messages* items to *queue*, and yield their headers: *headers* and those of the context.

    Add them in the body, with `new_item(…, headers=…)`.  Without OpenTelemetry this yields *headers* alone.
    """
    given = dict(headers or {})
    if not installed():
        yield given
        return
    if not is_recorded():
        # The program may pass a context on that it has got itself.
        yield {**context_headers(), **given}
        return
    with Telemetry(server).publishing(queue, messages) as context:
        yield {**context, **given}


def _type_of(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
