"""
RabbitMQ: a durable queue, persistent messages, publisher confirms, and consumers that acknowledge each message.

Its consumers do not poll but are sent messages, and it does not answer their
acknowledgements: the figure for taking is a rate, and no latency.
"""

import os
import shutil
import subprocess
from pathlib import Path
from struct import Struct, pack
from time import monotonic, sleep

from load_connection import InOrder, Unexpected

from peers.peer import Peer, free_port

FRAME = Struct("!BHI")
METHOD = Struct("!HH")
TAG = Struct("!Q")
METHODS, HEADER, BODY = 1, 2, 3
END = b"\xce"
FRAME_MAX = 131_072
PERSISTENT = 0x1000
QUEUE = "q"
READY_SECONDS = 40
PREFETCH_MAX = 65_535
ACK, DELIVER = (60, 80), (60, 60)


def short(text):
    return bytes([len(text)]) + text.encode()


def frame(kind, channel, content):
    return FRAME.pack(kind, channel, len(content)) + content + END


def method(class_, number, content=b"", channel=1):
    return frame(METHODS, channel, METHOD.pack(class_, number) + content)


def publish(contents):
    """One persistent message to the queue."""
    properties = pack("!HHQHB", 60, 0, len(contents), PERSISTENT, 2)
    most = FRAME_MAX - 8
    bodies = [frame(BODY, 1, contents[at : at + most]) for at in range(0, len(contents), most)]
    to_queue = pack("!H", 0) + short("") + short(QUEUE) + b"\0"
    return method(60, 40, to_queue) + frame(HEADER, 1, properties) + b"".join(bodies)


class Connection(InOrder):
    """A connection with one channel."""

    def __init__(self, port, role, load):
        super().__init__(port, role, load)
        self.log_in()
        self.put = publish(load.contents) * self.per_call
        self.pieces = 0
        self.upto = 0
        self.single = set()
        if role == "take":
            count = min(PREFETCH_MAX, self.window * self.per_call)
            self.ask(method(60, 10, pack("!IHB", 0, count, 0)), (60, 11))
            consume = pack("!H", 0) + short(QUEUE) + short("") + b"\0" + pack("!I", 0)
            self.ask(method(60, 20, consume), (60, 21))

    def log_in(self):
        plain = b"\0guest\0guest"
        login = pack("!I", 0) + short("PLAIN") + pack("!I", len(plain)) + plain + short("en_US")
        self.ask(b"AMQP\0\0\x09\x01", (10, 10))
        self.ask(method(10, 11, login, 0), (10, 30))
        tuned = method(10, 31, pack("!HIH", 1, FRAME_MAX, 0), 0)
        self.ask(tuned + method(10, 40, short("/") + b"\0\0", 0), (10, 41))
        self.ask(method(20, 10, b"\0"), (20, 11))
        declare = pack("!H", 0) + short(QUEUE) + b"\x02" + pack("!I", 0)
        self.ask(method(50, 10, declare), (50, 11))
        self.ask(method(85, 10, b"\0"), (85, 11))

    def ask(self, request, answer):
        """Send *request* and wait for *answer*; bytes that come after it are kept."""
        self.socket.sendall(request)
        while True:
            data = self.received()
            if len(data) >= 11 and len(data) >= 8 + FRAME.unpack_from(data)[2]:
                size = FRAME.unpack_from(data)[2]
                if METHOD.unpack_from(data, 7) != answer:
                    raise Unexpected(f"{data[:200]}")
                self.rest = data[8 + size :]
                return
            self.rest = data

    def request(self):
        return self.put

    def begin(self):
        if self.role == "add":
            super().begin()
        elif self.rest:
            # The first messages may have come with the answer to what asked for them.
            self.deliver(self.rest)

    def answers(self, data):
        """Confirms, each of one message or of all up to it; each message is confirmed once."""
        count = 0
        for kind, at, _, at_end in self.frames(data):
            if kind != METHODS or METHOD.unpack_from(data, at) != ACK:
                raise Unexpected(f"a message was answered by {data[at:at_end]}")
            (tag,) = TAG.unpack_from(data, at + 4)
            if data[at + 12]:
                count += tag - self.upto - len([each for each in self.single if each <= tag])
                self.single = {each for each in self.single if each > tag}
                self.upto = tag
            else:
                count += 1
                self.single.add(tag)
                while self.upto + 1 in self.single:
                    self.upto += 1
                    self.single.remove(self.upto)
        calls, self.pieces = divmod(self.pieces + count, self.per_call)
        return [self.per_call] * calls, data[self.end :]

    def frames(self, data):
        """Kind, beginning, size and end of the content of each frame that is whole; `end` is where they end."""
        at, length = 0, len(data)
        while at + 8 <= length:
            kind, _, size = FRAME.unpack_from(data, at)
            if at + 8 + size > length:
                break
            yield kind, at + 7, size, at + 7 + size
            at += 8 + size
        self.end = at

    def turn(self, more):
        if self.role == "add":
            super().turn(more)
        else:
            self.deliver(self.received())

    def deliver(self, data):
        """Acknowledge each message."""
        out = []
        for kind, at, _, at_end in self.frames(data):
            if kind != METHODS:
                continue
            if METHOD.unpack_from(data, at) != DELIVER:
                raise Unexpected(f"a consumer was sent {data[at:at_end]}")
            tag = at + 5 + data[at + 4]
            out.append(method(*ACK, data[tag : tag + 8] + b"\0"))
        self.rest = data[self.end :]
        self.items += len(out)
        if out:
            self.socket.sendall(b"".join(out))


class RabbitMQ(Peer):
    """A classic queue."""

    name = "rabbitmq"
    says = "fsync before the confirm, one for many (persistent, publisher confirms)"
    program = "rabbitmq-server"
    connection_class = Connection
    start_seconds = 90

    def found(self):
        # The one in the path changes to a user of its own, and knows one place for everything.
        script = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
        return str(script) if script.exists() and shutil.which("epmd") else None

    def command(self, port, directory):
        return [self.found()]

    def environment(self, port, directory):
        self.names = str(free_port())
        (directory / "plugins").write_text("[].\n")
        return {
            "HOME": str(directory),
            "ERL_EPMD_PORT": self.names,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"bench{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "logs"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "none"),
            "RABBITMQ_CONFIG_FILE": str(directory / "none"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "none"),
        }

    def ready(self, port):
        class Plain:
            window, items, kind, contents = 1, 1, "add", b""

        give_up = monotonic() + READY_SECONDS
        while True:
            try:
                Connection(port, "add", Plain).socket.close()
            except (Unexpected, OSError):
                if monotonic() > give_up:
                    raise
                sleep(0.3)
            else:
                return

    def cleanup(self, port, directory):
        """End the daemon that Erlang started to find its nodes; its port identifies it."""
        environment = {**os.environ, "ERL_EPMD_PORT": self.names, "ERL_EPMD_ADDRESS": "127.0.0.1"}
        subprocess.run(
            ["epmd", "-kill"], env=environment, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
