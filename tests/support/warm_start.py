"""
Server processes without the time for imports: each is a fork of a process that has imported everything.

A start of `twistd queueber` takes 0.4 s of CPU, nearly all of it for imports, and the tests start some hundred servers.
Two things differ from a start of the script: when modules are imported, and the parent process.
`tests/process/test_twistd.py` and `tests/deploy` start the script itself.

Run as a program, with the descriptor of a socket as its argument, this is the process that forks.
"""

import atexit
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from threading import Lock

REQUEST_BYTES_MAX = 1 << 20

# The server's first module is not among these: it takes charge of signals as it is imported.
IMPORTED = ("queueber.server.app.service", "twisted.scripts._twistd_unix", "twisted.internet.epollreactor")


class Parent:
    """The process that forks servers with one environment."""

    def __init__(self, environment):
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = Lock()
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environment
            )
        atexit.register(self._end)

    def fork(self, arguments, output, prepare):
        """Start `twistd` with *arguments* and its output in the descriptor *output*; return its process id."""
        return self._ask({"arguments": arguments, "directory": str(Path.cwd()), "prepare": prepare}, output)

    def status(self, pid):
        """Wait for a server that has ended and return its exit status, negative for a signal."""
        return os.waitstatus_to_exitcode(self._ask({"ended": pid}))

    def _ask(self, request, *descriptors):
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
            return json.loads(self._socket.recv(REQUEST_BYTES_MAX))

    def _end(self):
        self._socket.close()
        self._process.wait()


_parents: dict[tuple, Parent] = {}


class WarmProcess:
    """
    A `twistd` with *arguments*: the part of `subprocess.Popen` that the tests use, with output as text.

    With *output*, a descriptor, its output goes there. *prepare* is a call that the new process makes before it becomes
    a server: the path of a module, the name of a function, and keyword arguments that JSON can express.
    """

    def __init__(self, arguments, environment, *, output=None, prepare=None):
        # pytest sets this one anew for each test.
        environment = {name: value for name, value in environment.items() if name != "PYTEST_CURRENT_TEST"}
        key = tuple(sorted(environment.items()))
        if key not in _parents:
            _parents[key] = Parent(environment)
        self._parent = _parents[key]
        self.stdout = None
        if output is None:
            reading, writing = os.pipe()
            self.stdout = os.fdopen(reading, encoding="utf-8")  # the user closes it, as that of a Popen
            self.pid = self._parent.fork(arguments, writing, prepare)
            os.close(writing)
        else:
            self.pid = self._parent.fork(arguments, output, prepare)
        self.ending = os.pidfd_open(self.pid)
        """A descriptor that is readable once the process has ended; `poll` and `wait` close it then."""

        self.returncode = None

    def poll(self):
        """Return the exit status, None while it runs."""
        return self._wait(0)

    def wait(self, timeout=None):
        """Return the exit status as soon as there is one."""
        if self._wait(timeout) is None:
            raise subprocess.TimeoutExpired("twistd", timeout)
        return self.returncode

    def _wait(self, seconds):
        if self.returncode is None and select.select([self.ending], [], [], seconds)[0]:
            os.close(self.ending)
            self.returncode = self._parent.status(self.pid)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def forked(requests):
    """Fork a server for each request; return the request in each fork, and None at the end of the requests."""
    for name in IMPORTED:
        importlib.import_module(name)
    while True:
        data, descriptors, _, _ = socket.recv_fds(requests, REQUEST_BYTES_MAX, 1)
        if not data:
            return None
        request = json.loads(data)
        if "ended" in request:
            answer = os.waitpid(request["ended"], 0)[1]
        elif not (answer := os.fork()):
            break
        for each in descriptors:
            os.close(each)
        requests.send(json.dumps(answer).encode())
    requests.close()
    (output,) = descriptors
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.chdir(request["directory"])
    return request


if __name__ == "__main__":
    found = forked(socket.socket(fileno=int(sys.argv[1])))
    if found is not None:
        from twisted.scripts.twistd import run

        sys.argv, sys.path[0] = ["twistd", *found["arguments"]], ""
        if found["prepare"] is not None:
            path, function, keywords = found["prepare"]
            sys.path[0] = str(Path(path).parent)
            getattr(importlib.import_module(Path(path).stem), function)(**keywords)
        run()
