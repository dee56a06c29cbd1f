"""Redis streams: a consumer group, an append-only file that is synced before the answers, or once a second."""

from collections import deque
from itertools import cycle

from load_connection import InOrder, RanDry, Unexpected

from peers.peer import Peer

STREAM, GROUP = b"q", b"g"
REMOVED = b":1\r\n"
FIELD = b"*2\r\n$1\r\nc\r\n$"
EMPTY = (b"*-1\r\n", b"$-1\r\n")


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


class Connection(InOrder):
    """An add of several items is so many XADD in one write; a poll is one XREADGROUP, each removal one XACK."""

    def __init__(self, port, role, load):
        super().__init__(port, role, load)
        adds = [[command(b"XADD", STREAM, b"*", b"c", each) for each in batch] for batch in load.batches]
        self.adds = cycle(map(b"".join, adds))
        consumer = b"c%d" % self.socket.getsockname()[1]
        count = b"%d" % self.per_call
        self.poll = command(b"XREADGROUP", b"GROUP", GROUP, consumer, b"COUNT", count, b"STREAMS", STREAM, b">")
        self.pieces = 0
        self.found = deque()
        self.asked = deque()

    def request(self):
        if self.role == "add":
            return next(self.adds)
        if self.found:
            self.asked.append(True)
            return command(b"XACK", STREAM, GROUP, self.found.popleft())
        self.asked.append(False)
        return self.poll

    def answers(self, data):
        return self.added(data) if self.role == "add" else self.taken(data)

    def added(self, data):
        """Each is a length, a line, and an id, another."""
        end = data.rfind(b"\n") + 1
        lines, lengths = data.count(b"\n", 0, end), data.count(b"$", 0, end)
        if lines % 2 and data.rfind(b"$", 0, end) > data.rfind(b"\n", 0, end - 1):
            # The last line is a length whose id has not come.
            end = data.rfind(b"$", 0, end)
            lines, lengths = lines - 1, lengths - 1
        if lengths * 2 != lines:
            raise Unexpected(f"an XADD was answered by {data[:100]}")
        calls, self.pieces = divmod(self.pieces + lengths, self.per_call)
        return [self.per_call] * calls, data[end:]

    def taken(self, data):
        completed, at = [], 0
        while self.asked:
            if self.asked[0]:
                if len(data) - at < len(REMOVED):
                    break
                if data[at : at + len(REMOVED)] != REMOVED:
                    raise Unexpected(f"an XACK was answered by {data[at : at + 50]}")
                at += len(REMOVED)
                completed.append(1)
            else:
                end = self.polled(data, at)
                if end is None:
                    break
                at = end
                completed.append(0)
            self.asked.popleft()
        return completed, data[at:]

    def polled(self, data, at):
        """Where the poll's answer from *at* on ends, or None if that has not come; keeps the ids."""
        if data[at : at + 5] in EMPTY:
            if self.dry_ends:
                raise RanDry
            return at + 5
        head = b"*1\r\n*2\r\n$1\r\nq\r\n*"
        if len(data) - at <= len(head):
            return None
        if data[at : at + len(head)] != head:
            raise Unexpected(f"an XREADGROUP was answered by {data[at : at + 50]}")
        end = data.find(b"\r\n", at + len(head))
        if end < 0:
            return None
        count, at, ids = int(data[at + len(head) : end]), end + 2, []
        for _ in range(count):
            # *2, the id's length, the id.
            start = data.find(b"\n", at + 4) + 1
            end = data.find(b"\r\n", start)
            # The field's name, and the length of its contents.
            length = end + 2 + len(FIELD)
            after = data.find(b"\r\n", length)
            if not start or end < 0 or after < 0:
                return None
            at = after + 2 + int(data[length:after]) + 2
            if at > len(data):
                return None
            ids.append(data[start:end])
        self.found += ids
        return at


class Redis(Peer):
    """Synced before the answers, once for all commands of a turn."""

    name = "redis-always"
    says = "fsync before the answer, one for all commands of an event loop turn (appendfsync always)"
    program = "redis-server"
    connection_class = Connection
    mixed = True
    fsync = "always"

    def command(self, port, directory):
        options = {
            "bind": "127.0.0.1",
            "port": str(port),
            "dir": str(directory),
            "appendonly": "yes",
            "appendfsync": self.fsync,
            "save": "",
            "daemonize": "no",
        }
        return [self.found(), *(word for name, value in options.items() for word in (f"--{name}", value))]

    def ready(self, port):
        class Plain:
            """The part of a load that is needed to send calls."""

            window, items, kind, batches = 1, 1, "add", [[b""]]

        connection = Connection(port, "add", Plain)
        connection.conversation(command(b"XGROUP", b"CREATE", STREAM, GROUP, b"0", b"MKSTREAM"))
        connection.socket.close()


class Lazy(Redis):
    """Synced once a second."""

    name = "redis-everysec"
    says = "fsync once a second, after the answer (appendfsync everysec)"
    fsync = "everysec"
