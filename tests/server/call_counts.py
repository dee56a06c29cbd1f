"""
Counts the Python calls of one add, one remove and one poll, from the bytes of the call to those of its reply.

The server is the one that `twistd queueber` runs, in this process: a reactor, a storage pool, RocksDB with fsync, and
one client with one call in flight, whose own calls are not counted. Each call comes with the Finish of the one before.

Prints a JSON object: for each kind the calls of `queueber`, those of libraries, the modules of `queueber` that were
entered, and how often the flow went from one of these modules to another. With a kind as its argument, it also prints
the calls of that kind in order, to standard error.
"""

import json
import os
import socket
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

from attrs import define, field
from twisted.internet import reactor

import queueber
from queueber import api, rpc
from queueber.limits import Limits
from queueber.server.app.plugin import Options, makeService
from queueber.units import SpanMs

OURS = f"{Path(queueber.__file__).parent}{os.sep}"

# The lowest of this number of counts is used: a timer may run during the others, or a thread may start late.
TIMES = 15
WARM_UP = 20

QUIET_SECONDS = 0.03
"""Before each call, so that everything that follows the call before has been done."""


@define
class Count:
    """The calls that a profiler has seen while it was on."""

    on: bool = False
    calls: list = field(factory=list)

    def profile(self, frame, event, _):
        """Be a profiler for `sys.setprofile`."""
        if self.on and event == "call":
            self.calls.append((frame.f_code.co_filename, frame.f_code.co_qualname))

    def take(self):
        """Return the calls since the last time."""
        calls, self.calls = self.calls, []
        return calls


def figures(calls):
    """Return the figures of one list of calls."""
    modules = [file for file, _ in calls if file.startswith(OURS)]
    switches = sum(one != other for one, other in pairwise(modules))
    return {"ours": len(modules), "others": len(calls) - len(modules), "modules": len({*modules}), "switches": switches}


class Client:
    """A connection with one call in flight, over a blocking socket."""

    def __init__(self, path, count):
        self._count = count
        self._socket = connected(path)
        self._connection = rpc.Connection(limits=Limits())
        self._root = rpc.PromisedAnswer(self._connection.bootstrap())
        self._last = None

    def call(self, method, content):
        """Make one call; return its outcome and the calls of Python that it took."""
        if self._last is not None:
            self._connection.finish(self._last)
        self._last = self._connection.call(self._root, api.QUEUE_INTERFACE_ID, method, content)
        data = self._connection.data_to_send()
        time.sleep(QUIET_SECONDS)
        self._count.take()
        self._count.on = True
        self._socket.sendall(data)
        while True:
            reply = self._socket.recv(1 << 16)
            self._count.on = False
            for event in self._connection.receive_data(reply):
                if event.question == self._last:
                    return event.outcome, self._count.take()
            self._count.on = True


def connected(path):
    """Return a socket of the server that will listen at *path*."""
    while True:
        found = socket.socket(socket.AF_UNIX)
        if not found.connect_ex(str(path)):
            return found
        found.close()
        time.sleep(0.01)


def measure(path, count, found):
    """Fill *found* with the calls of each kind."""
    sys.setprofile(None)
    client = Client(path, count)
    for number in range(WARM_UP):
        add(client, 50 + 7 * number)
    found["add"] = [add(client, 333) for _ in range(TIMES)]
    found["poll"], found["remove"] = [], []
    for _ in range(TIMES):
        request = api.PollRequest(SpanMs(30_000), 1, SpanMs(1_000), no_wait=False)
        outcome, calls = client.call(api.POLL, api.write_poll_request(request))
        found["poll"].append(calls)
        response = api.read_poll_response(outcome)
        request = api.RemoveRequest(bytes(response.items[0].id), bytes(response.lease))
        outcome, calls = client.call(api.REMOVE, api.write_remove_request(request))
        assert api.read_remove_response(outcome)
        found["remove"].append(calls)


def add(client, size):
    """Add an item of *size* bytes; return the calls."""
    request = api.AddRequest([api.NewItem(bytes(size), SpanMs(0))])
    return client.call(api.ADD, api.write_add_request(request))[1]


def main():
    count, found = Count(), {}
    threading.setprofile(count.profile)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rpc.sock"
        options = Options()
        options.parseOptions([f"--data-dir={folder}/data", f"--listen=unix:{path}"])
        service = makeService(options)
        service.startService()

        def work():
            try:
                measure(path, count, found)
            finally:
                reactor.callFromThread(reactor.stop)

        reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
        threading.Thread(target=work, daemon=True).start()
        sys.setprofile(count.profile)
        reactor.run()
        sys.setprofile(None)
    least = {kind: min(each, key=len) for kind, each in found.items()}
    for file, name in least.get(sys.argv[1] if sys.argv[1:] else "", []):
        print(file.removeprefix(OURS).rpartition("site-packages/")[2], name, file=sys.stderr)
    print(json.dumps({kind: figures(calls) for kind, calls in least.items()}))


if __name__ == "__main__":
    main()
