"""Stand-ins for the clients and the worker's items, as tasks use them."""

import asyncio
import inspect
from types import SimpleNamespace

from twisted.internet.defer import fail, succeed

from queueber.api import AddResponse
from queueber.errors import QueueberError
from queueber.tasks import Tasks
from queueber.values import Settlement
from queueber.worker.verdicts import verdict_of, verdict_of_error

URL = "queueber://127.0.0.1:9090/mail"


def item_id(number):
    return number.to_bytes(16, "big")


class Adds:
    """A client that keeps the items added, and knows request ids."""

    def __init__(self, window=300_000):
        self.added = []
        """Queue and item of each."""

        self.calls = []
        """Time limit of each call."""

        self.errors = []
        """To raise, one for each call."""

        self.closed = False
        self.window = window
        self._ids = {}

    def queue(self, name):
        return SimpleNamespace(add_items=lambda *items, **options: self.answer(name, *items, **options))

    def answer(self, queue, *items, request_id, timeout_ms):
        self.calls.append(timeout_ms)
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        if request_id in self._ids:
            return AddResponse(self._ids[request_id], [])
        found = [item_id(len(self.added) + number) for number in range(1, len(items) + 1)]
        self.added += [(queue, item) for item in items]
        if request_id:
            self._ids[request_id] = found
        return AddResponse(found, [])

    def control(self, queue):
        found = SimpleNamespace(settings=SimpleNamespace(dedup_window_ms=self.window))
        return SimpleNamespace(settings=lambda: self.done(found))

    def done(self, value):
        return value

    def close(self):
        self.closed = True
        return self.done(None)


class AioAdds(Adds):
    async def answer(self, *args, **kwargs):
        return super().answer(*args, **kwargs)

    async def done(self, value):
        return value


class TxAdds(Adds):
    def answer(self, *args, **kwargs):
        try:
            return succeed(super().answer(*args, **kwargs))
        except QueueberError:
            return fail()

    def done(self, value):
        return succeed(value)


def app_with_adds(**options):
    """An app, and the blocking client to which it adds."""
    app, adds = Tasks(URL, **options), Adds()
    app.connections.use(sync=adds)
    return app, adds


def verdict(app, item):
    """The worker's verdict on *item* with the handler of *app*."""
    try:
        found = app.handler(item)
        return verdict_of(asyncio.run(found) if inspect.isawaitable(found) else found)
    except Exception as why:  # noqa: BLE001  (as the worker does)
        return verdict_of_error(why)


def drain(app):
    """Run all ready items of *app* as a worker does, and return their contents."""
    client, runs = app.connections.sync(), []
    while True:
        queue, batch = client.poll_any(list(app.queues), wait_ms=0)
        if not batch.items:
            return runs
        (item,) = batch.items
        found = verdict(app, item)
        entry = Settlement(item.lease, item.id, found.action, found.delay, found.error)
        client.queue(queue).settle(entry, adds=found.adds)
        runs.append(item.contents)


def delivered(item, attempt=1, failures=0, losses=0):
    """The item as a worker gets it."""
    return SimpleNamespace(
        id=item_id(1),
        contents=item.contents,
        headers=dict(item.options.headers),
        attempt=attempt,
        failures=failures,
        losses=losses,
    )
