"""
One suite for the three faces of the client: each test that takes `face` runs over each of them.

A test is a coroutine on an asyncio loop.  The asyncio face is used as it is, the Twisted face through futures of its
Deferreds on a reactor that shares the loop, and the blocking face through calls in threads.
"""

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest
from attrs import define, field
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred, ensureDeferred

import queueber.aio
import queueber.client
import queueber.sync
from queueber.testing import TestServer

THREADS = 64
TIMEOUT_SECONDS = 30

PLAIN = {"queue", "control", "dead_letters", "items", "facts_of", "session"}
"""The methods that return at once on every face."""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run the tests that are coroutines."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: value for name, value in pyfuncitem.funcargs.items() if name in names}

    async def run():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await pyfuncitem.obj(**arguments)

    asyncio.run(run())
    return True


def is_ours(value):
    return type(value).__module__.startswith(("queueber.sync", "queueber.client."))


class Proxy:
    """An object of a face, whose methods can be awaited on an asyncio loop."""

    def __init__(self, target):
        self.target = target

    def __getattr__(self, name):
        value = getattr(self.target, name)
        if not callable(value):
            return self.wrapped(value)
        if name in PLAIN:
            return lambda *args, **named: self.wrapped(value(*bare(args), **bare(named)))
        return lambda *args, **named: self.call(value, *bare(args), **bare(named))

    def __len__(self):
        return len(self.target)

    def __iter__(self):
        return iter([self.wrapped(each) for each in self.target])

    def __aiter__(self):
        return self.wrapped(self.begun())

    async def __anext__(self):
        found = await self.call(self.next)
        if found is END:
            raise StopAsyncIteration
        return found

    def wrapped(self, value):
        if isinstance(value, tuple | list) and any(is_ours(each) for each in value):
            return type(value)([self.wrapped(each) for each in value])
        return type(self)(value) if is_ours(value) and not isinstance(value, type) else value


END = object()


def bare(arguments):
    """Return *arguments* with the targets of proxies."""
    if isinstance(arguments, dict):
        return {name: bare_of(each) for name, each in arguments.items()}
    return [bare_of(each) for each in arguments]


def bare_of(value):
    return value.target if isinstance(value, Proxy) else value


class InThread(Proxy):
    """An object of the blocking face."""

    async def call(self, function, *args, **named):
        return self.wrapped(await asyncio.to_thread(function, *args, **named))

    def begun(self):
        return iter(self.target)

    def next(self):
        return next(self.target, END)

    async def __aenter__(self):
        return await self.call(self.target.__enter__)

    async def __aexit__(self, *why):
        return await self.call(self.target.__exit__, *why)


class OnReactor(Proxy):
    """An object of the Twisted face."""

    async def call(self, function, *args, **named):
        outcome = function(*args, **named)
        if inspect.iscoroutine(outcome):
            outcome = ensureDeferred(outcome)
        if isinstance(outcome, Deferred):
            outcome = await outcome.asFuture(asyncio.get_running_loop())
        return self.wrapped(outcome)

    def begun(self):
        return self.target.__aiter__()

    async def next(self):
        try:
            return await self.target.__anext__()
        except StopAsyncIteration:
            return END

    async def __aenter__(self):
        return await self.call(self.target.__aenter__)

    async def __aexit__(self, *why):
        return await self.call(self.target.__aexit__, *why)


@define
class Face:
    """One face, with the clients that a test has made over it."""

    name: str
    module: object
    clients: list = field(factory=list)
    _reactor: object = None

    def connect(self, url, **options):
        """Return a client of the face, whose methods can be awaited."""
        if self.name == "twisted":
            client = OnReactor(self.module.connect(self.reactor, url, **options))
        else:
            client = self.module.connect(url, **options)
            client = InThread(client) if self.name == "sync" else client
        self.clients.append(client)
        return client

    @property
    def reactor(self):
        """A reactor on the running loop, installed nowhere."""
        if self._reactor is None:
            self._reactor = AsyncioSelectorReactor(asyncio.get_running_loop())
            self._reactor.startRunning(installSignalHandlers=False)
        return self._reactor

    def end(self):
        """Stop the threads of the reactor, which look up names."""
        if self._reactor is not None:
            self._reactor.getThreadPool().stop()

    @asynccontextmanager
    async def client(self, url, **options):
        """Connect, and close at the end."""
        client = self.connect(url, **options)
        try:
            yield client
        finally:
            await client.close()


FACES = {"twisted": queueber.client, "aio": queueber.aio, "sync": queueber.sync}


@pytest.fixture(params=FACES)
def face(request):
    """Each of the three faces."""
    face = Face(request.param, FACES[request.param])
    yield face
    face.end()


@pytest.fixture(params=["twisted", "aio"])
def cancelling_face(request):
    """The faces whose calls can be cancelled; for the other there are interrupts."""
    face = Face(request.param, FACES[request.param])
    yield face
    face.end()


@pytest.fixture(scope="session")
def shared_server():
    with TestServer(tcp=True) as server:
        yield server


@pytest.fixture
def server(shared_server):
    """The server of all tests; each test has queues of its own."""
    return shared_server


@pytest.fixture
def name(request):
    """The name of a queue of this test."""
    return request.node.nodeid.encode()[-200:].decode(errors="ignore")


@pytest.fixture
def url(server, name):
    return server.url(name)
