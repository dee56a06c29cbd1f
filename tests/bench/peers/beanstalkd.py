"""beanstalkd: one thread, a log that is synced once for each write (`-f 0`) or every 50 ms."""

from collections import deque
from itertools import cycle

from load_connection import InOrder, RanDry, Unexpected

from peers.peer import Peer

ADDED = b"INSERTED "
REMOVED = b"DELETED\r\n"
EMPTY = b"TIMED_OUT\r\n"
TTR_SECONDS = 600


def put(contents):
    """The command that adds an item."""
    return b"put 0 0 %d %d\r\n%b\r\n" % (TTR_SECONDS, len(contents), contents)


class Connection(InOrder):
    """An add of several items is so many `put` in one write; so is a poll, of `reserve` that do not wait."""

    def __init__(self, port, role, load):
        super().__init__(port, role, load)
        self.puts = cycle([b"".join(map(put, batch)) for batch in load.batches])
        self.reserve = b"reserve-with-timeout 0\r\n" * self.per_call
        self.pieces = 0
        self.found = deque()
        self.asked = deque()

    def request(self):
        if self.role == "add":
            return next(self.puts)
        if self.found:
            self.asked.append(True)
            return b"delete %b\r\n" % self.found.popleft()
        self.asked.append(False)
        return self.reserve

    def answers(self, data):
        return self.added(data) if self.role == "add" else self.taken(data)

    def added(self, data):
        end = data.rfind(b"\n") + 1
        count = data.count(b"\n", 0, end)
        if data.count(ADDED, 0, end) != count:
            raise Unexpected(f"a put was answered by {data[:100]}")
        calls, self.pieces = divmod(self.pieces + count, self.per_call)
        return [self.per_call] * calls, data[end:]

    def taken(self, data):
        completed, at = [], 0
        while self.asked:
            end = data.find(b"\r\n", at) + 2
            if end == 1:
                break
            line = data[at:end]
            if self.asked[0]:
                if line != REMOVED:
                    raise Unexpected(f"a delete was answered by {line}")
                self.asked.popleft()
                completed.append(1)
            else:
                if line != EMPTY:
                    what, number, length = line.split()
                    if what != b"RESERVED":
                        raise Unexpected(f"a reserve was answered by {line}")
                    end += int(length) + 2
                    if end > len(data):
                        break
                    self.found.append(number)
                elif self.dry_ends and not self.pieces:
                    raise RanDry
                self.pieces += 1
                if self.pieces == self.per_call:
                    self.pieces = 0
                    self.asked.popleft()
                    completed.append(0)
            at = end
        return completed, data[at:]


class Beanstalkd(Peer):
    """Synced once for each write."""

    name = "beanstalkd-f0"
    says = "fsync for each write"
    program = "beanstalkd"
    connection_class = Connection
    mixed = True
    interval = "0"

    def command(self, port, directory):
        log = directory / "binlog"
        log.mkdir(exist_ok=True)
        limits = ["-z", str(1 << 20), "-s", str(1 << 28)]
        return [self.found(), "-l", "127.0.0.1", "-p", str(port), "-b", str(log), "-f", self.interval, *limits]


class Lazy(Beanstalkd):
    """Synced every 50 ms, after the answer."""

    name = "beanstalkd-f50"
    says = "fsync every 50 ms, after the answer"
    interval = "50"
