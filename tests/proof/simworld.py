# ruff: noqa: N802, PLW0108  (the reactor's names; functions in the place of methods)
"""
A machine, its clocks, and a server on it: all of the server's own parts on a disk, threads and time that are simulated.

The service, the assembly, the store and the data directory are the real ones.
What stands in is RocksDB below the store (`simdisk`), the threads (a job runs
when a step runs it, and its result arrives in a step of its own), the reactor
(`task.Clock`), the clocks and the sockets.
"""

from contextlib import ExitStack
from functools import partial
from random import Random
from unittest.mock import patch

import simdisk
from attrs import define, field
from simdisk import Dead, Disk, SimDB, SimOs, SimPath
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from queueber.broker import ClaimBounds
from queueber.server.app import composition as assembly
from queueber.server.app import service, startup
from queueber.server.app.fd_limit import Descriptors
from queueber.server.config.settings import Settings
from queueber.server.core.clock import QueueClock
from queueber.server.core.committer import Committer
from queueber.server.core.ids import RandomIds
from queueber.server.core.reserve import Space
from queueber.store import Durability, rocks
from queueber.store.datadir import directory, synced
from queueber.store.rows import engine_port
from queueber.store.rows.kv_store import KeyValueStore
from tests.support.queue_model import BrokenPromise

ROOMY = Space(10**12, 10**12)
FULL = Space(64 << 20, 10**12)


@define(eq=False)
class Job:
    """A job for a thread of the pool."""

    done: Deferred
    what: object
    name: str
    result: object = None


class Pool:
    """The storage threads: jobs begin in order and end in any."""

    workers = 2

    def __init__(self, rng):
        self.rng, self.jobs, self.over = rng, [], []

    def start(self):
        pass

    stop = start

    @property
    def busy(self):
        return len(self.over)

    @property
    def waiting(self):
        return len(self.jobs)

    def run(self, function, *args, **kwargs):
        job = Job(Deferred(), lambda: function(*args, **kwargs), getattr(function, "__name__", ""))
        self.jobs.append(job)
        return job.done

    def callInThreadWithCallback(self, on_result, function, *args, **kwargs):
        self.run(function, *args, **kwargs).addCallbacks(lambda r: on_result(True, r), lambda f: on_result(False, f))

    def work(self):
        """Do one job in a thread."""
        if self.jobs:
            self._do(self.jobs.pop(self.rng.randrange(min(len(self.jobs), self.workers))))

    def _do(self, job):
        try:
            job.result = job.what()
        except Exception:  # noqa: BLE001  (as a pool does)
            job.result = Failure()
        self.over.append(job)

    def deliver(self):
        """Deliver the result of one job to the reactor."""
        if self.over:
            job = self.over.pop(self.rng.randrange(len(self.over)))
            job.done.callback(job.result)

    def meanwhile(self):
        """Read in another thread during a sync.  (What waits for a lock would wait for ever: there is one thread.)"""
        if self.jobs and self.jobs[0].name in ("scan", "_read") and self.rng.random() < 0.7:
            self._do(self.jobs.pop(0))


class Reactor(Clock):
    """A reactor: time, and as much of the rest as the service requires."""

    def __init__(self, pool, uptime):
        super().__init__()
        self.rightNow = uptime
        self.pool, self.stopped = pool, False

    def callWhenRunning(self, function, *args):
        function(*args)

    def callFromThread(self, function, *args):
        function(*args)

    def addSystemEventTrigger(self, *_):
        pass

    def stop(self):
        self.stopped = True

    def getThreadPool(self):
        return self.pool


class MarkedClock(QueueClock):
    """A clock that notifies the machine when it makes a mark."""

    machine = None

    def mark(self):
        mark = super().mark()
        self.machine.marks[mark] = self.machine.time
        return mark


@define(eq=False)
class Machine:
    """The clocks of a machine, and its disk."""

    rng: Random
    limits: object
    bounds: ClaimBounds = field(factory=ClaimBounds)
    lies: float = 0.0
    time: float = 1_000_000.0
    """The time that has really passed, seconds.  The server cannot see it."""

    wall_offset: float = 1.7e9
    booted: float = 0.0
    boot_skew: float = 0.0
    boots: int = 1
    disk: Disk = field(init=False)
    space: Space = ROOMY
    reactor: Reactor | None = None
    pool: Pool | None = None
    server: object = None
    store: object = None
    """The store that the server has opened last."""

    clock: QueueClock | None = None
    ended: tuple | None = None
    """The reason why the server ended its process."""

    bugs: list = field(factory=list)
    marks: dict = field(factory=dict)
    """The real time of each mark."""

    ids: Random = field(init=False)
    submitted: object = lambda plan: None

    def __attrs_post_init__(self):
        self.disk = Disk(self.rng, self.lies)
        self.ids = Random(self.rng.random())

    # Clocks

    def wall(self):
        return self.time + self.wall_offset

    def boot_time(self):
        return max(0.0, self.time - self.booted + self.boot_skew)

    @property
    def boot_id(self):
        return self.boots.to_bytes(16, "big")

    def advance(self, seconds):
        """Advance time for everything in the running server."""
        before = self.clock.now()
        self.time += seconds
        self.reactor.advance(seconds)
        passed = self.clock.now() - before
        if abs(passed - seconds * 1e3) > 2:
            raise BrokenPromise(f"{passed} ms of queue time in {seconds} s")

    # Processes

    def boot(self, downtime=0.0):
        """Start a server process, after *downtime*; it serves once its jobs are done."""
        self.time += downtime
        self.ended = None
        self.pool = Pool(self.rng)
        self.disk.meanwhile = self.pool.meanwhile
        self.reactor = Reactor(self.pool, self.rng.choice((0.0, 5.0, 1e6)))
        settings = Settings(
            listen=(),
            data_dir=SimPath(self.disk),
            workers=2,
            durability=Durability.FSYNC,
            coalesce_max_batch_size=self.bounds.polls,
            coalesce_max_batch_items=self.bounds.items,
            claim_bytes=self.bounds.bytes,
            limits=self.limits,
            drain_seconds=1.0,
        )
        self.server = service.QueueberService(self.reactor, settings, pool=self.pool)
        self.server.startService()

    @property
    def up(self):
        """Return the parts of a server that serves."""
        return self.server.parts if self.server is not None else None

    @property
    def dead(self):
        return self.disk.dead or self.reactor.stopped

    def settle(self, turns=300):
        """Run turns and jobs until nothing is left to do, or the process has ended."""
        for _ in range(turns):
            self.reactor.advance(0)
            if self.pool.jobs:
                self.pool.work()
            if self.pool.over:
                self.pool.deliver()
            elif not self.pool.jobs and not self._due():
                return True
            if self.dead:
                return False
        raise BrokenPromise("there is no end to it")

    def _due(self):
        return any(call.getTime() <= self.reactor.seconds() for call in self.reactor.getDelayedCalls())

    def end_process(self, _log, what, why):
        """End the server, which must not go on."""
        if not self.disk.dead:
            self.ended = (what, why)
        self.disk.dead = True
        raise Dead

    def new_clock(self):
        self.clock = MarkedClock(self.wall, self.reactor.seconds, self.boot_time, self.boot_id)
        self.clock.machine = self
        return self.clock

    def new_ids(self):
        return RandomIds(self.ids.randbytes)

    def committing(self, store, writes, mark):
        """Note that a commit is about to be written."""
        self.disk.note = (writes, mark, self.marks[mark], self.boots)
        try:
            _COMMIT(store, writes, mark)
        finally:
            self.disk.note = None


_COMMIT, _SUBMIT = KeyValueStore.commit, Committer.submit
_NOWHERE = type("Inert", (), {"__getattr__": lambda self, _: lambda *_, **__: None})()


def _through(method):
    """Return a function, so that it is bound to the object whose method it replaces."""
    return lambda *args: method(*args)


class AtOnce:
    """A thread whose work is done before its `start` returns."""

    def __init__(self, target, args, daemon):
        self._work = partial(target, *args)

    def start(self):
        self._work()

    def join(self, timeout):
        pass


def on(machine):
    """Replace the system by *machine* inside the block."""
    stack = ExitStack()
    sim_os = SimOs()

    def open_store(*where, **how):
        machine.store = rocks.open_store(*where, **how)
        return machine.store

    def submit(committer, plan, take_reply, **more):
        machine.submitted(plan)
        _SUBMIT(committer, plan, take_reply, **more)

    for module, name, value in (
        (rocks, "open_database", SimDB.opened),
        (startup, "open_store", open_store),
        (rocks, "shutil", simdisk.SIM_SHUTIL),
        (directory, "os", sim_os),
        (directory, "fcntl", simdisk.SIM_FCNTL),
        (directory, "shutil", simdisk.SIM_SHUTIL),
        (synced, "os", sim_os),
        (synced, "Thread", AtOnce),
        (engine_port, "sleep", lambda _: None),
        (assembly, "RandomIds", machine.new_ids),
        (assembly, "space_of", lambda *_, **__: machine.space),
        (service, "end_process", machine.end_process),
        (startup, "end_process", machine.end_process),
        (service, "_exit", lambda _: None),
        (service, "gc", _NOWHERE),
        (service, "sys", _NOWHERE),
        (service, "on_signals", lambda *_: lambda: None),
        (startup, "start_control", lambda *_: None),
        (startup, "unflushed_bytes", lambda _: 0),
        (
            startup,
            "allocate",
            lambda connections, tables, pages, *_: Descriptors(None, connections, tables, pages),
        ),
        (startup, "QueueClock", machine.new_clock),
        (KeyValueStore, "commit", _through(machine.committing)),
        (Committer, "submit", submit),
    ):
        stack.enter_context(patch.object(module, name, value))
    return stack
