"""NATS JetStream: a work-queue stream in files, a pull consumer, each message acknowledged and that confirmed."""

import json
from collections import deque
from time import monotonic, perf_counter, sleep

from load_connection import InOrder, RanDry, Unexpected

from peers.peer import Peer

STREAM = {"name": "q", "subjects": ["q"], "retention": "workqueue", "storage": "file", "num_replicas": 1}
CONSUMER = {"durable_name": "c", "ack_policy": "explicit", "ack_wait": 600 * 10**9, "max_ack_pending": 10**6}
READY_SECONDS = 10


def published(subject, content, reply=b"in"):
    return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(content), content)


class Connection(InOrder):
    """A connection with an inbox of its own, where all answers come: those of polls among those of acknowledgements."""

    def __init__(self, port, role, load):
        super().__init__(port, role, load)
        self.inbox = b"in%d" % self.socket.getsockname()[1]
        hello = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True}
        self.conversation(b"CONNECT %b\r\nSUB %b 1\r\nPING\r\n" % (json.dumps(hello).encode(), self.inbox))
        # INFO comes first, PONG next.
        self.socket.sendall(b"PING\r\n")
        while b"PONG\r\n" not in (heard := self.received()):
            if b"-ERR" in heard:
                raise Unexpected(f"{heard}")
        self.put = published(b"q", load.contents, self.inbox) * self.per_call
        wanted = json.dumps({"batch": self.per_call, "no_wait": True}).encode()
        self.next = published(b"$JS.API.CONSUMER.MSG.NEXT.q.c", wanted, self.inbox)
        self.pieces = 0
        self.found = deque()
        self.polls = deque()
        """Of each poll under way when it was sent, and how many messages it has brought."""

    def ask(self, api, content):
        """The answer to a call of the JetStream API."""
        self.socket.sendall(published(b"$JS.API." + api, json.dumps(content).encode(), self.inbox))
        data = b""
        while data.count(b"\r\n") < 2 or b"MSG" not in data:
            data += self.received()
        return data

    def request(self):
        if self.role == "add":
            return self.put
        if self.found:
            self.sent.append(perf_counter())
            return published(self.found.popleft(), b"+ACK", self.inbox)
        self.polls.append([perf_counter(), 0])
        return self.next

    def send(self, count):
        if self.role == "add" or count <= 0:
            super().send(count)
            return
        self.in_flight += count
        self.socket.sendall(b"".join([self.request() for _ in range(count)]))

    def answers(self, data):
        if b"PING\r\n" in data or b"PONG\r\n" in data:
            data = data.replace(b"PING\r\n", b"").replace(b"PONG\r\n", b"")
        return self.added(data)

    def added(self, data):
        end = data.rfind(b"\n") + 1
        lines = data.count(b"\n", 0, end)
        if lines % 2:
            end = data.rfind(b"\n", 0, end - 1) + 1
        count = data.count(b'"seq":', 0, end)
        if count != lines // 2:
            raise Unexpected(f"a message was answered by {data[:200]}")
        calls, self.pieces = divmod(self.pieces + count, self.per_call)
        return [self.per_call] * calls, data[end:]

    def turn(self, more):
        if self.role == "add":
            super().turn(more)
            return
        data, now, at, done = self.received(), perf_counter(), 0, 0
        while True:
            end = data.find(b"\r\n", at)
            if end < 0:
                break
            words = data[at:end].split()
            if words[0] in {b"PING", b"PONG"}:
                at = end + 2
                continue
            if words[0] not in {b"MSG", b"HMSG"}:
                raise Unexpected(f"a poll was answered by {data[at:end]}")
            after = end + 2 + int(words[-1]) + 2
            if after > len(data):
                break
            at = after
            done += self.heard(words, now)
        self.rest = data[at:]
        self.in_flight -= done
        if more:
            self.send(done)

    def heard(self, words, now):
        """Return the number of calls that a message completes."""
        if words[0] == b"MSG" and words[1] == self.inbox:
            self.latencies.append(now - self.sent.popleft())
            self.items += 1
            return 1
        poll = self.polls[0]
        if words[0] == b"MSG":
            self.found.append(words[3])
            poll[1] += 1
            if poll[1] < self.per_call:
                return 0
        elif not poll[1] and self.dry_ends:
            raise RanDry
        self.latencies.append(now - self.polls.popleft()[0])
        return 1


class Nats(Peer):
    """NATS by its defaults: the files are synced every two minutes."""

    name = "nats"
    says = "written to a file; fsync every two minutes, after the answer"
    program = "nats-server"
    connection_class = Connection

    def command(self, port, directory):
        return [self.found(), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(directory)]

    def ready(self, port):
        class Plain:
            window, items, kind, contents = 1, 1, "add", b""

        connection = Connection(port, "add", Plain)
        give_up = monotonic() + READY_SECONDS
        for api, content in (
            (b"STREAM.CREATE.q", STREAM),
            (b"CONSUMER.DURABLE.CREATE.q.c", {"stream_name": "q", "config": CONSUMER}),
        ):
            while b'"error"' in (answer := connection.ask(api, content)) or b"503" in answer:
                if monotonic() > give_up:
                    raise Unexpected(f"{answer}")
                sleep(0.1)
        connection.socket.close()
