"""PostgreSQL: a table, `FOR UPDATE SKIP LOCKED`, a transaction for each call, and pipelines of them."""

import subprocess
from collections import deque
from pathlib import Path
from struct import Struct
from time import monotonic, sleep

from load_connection import InOrder, RanDry, Unexpected

from peers.peer import Peer

HEAD = Struct("!cI")
NUMBER = Struct("!I")
BYTEA = 17
READY_SECONDS = 20

TABLE = """
CREATE TABLE q (id bigserial PRIMARY KEY, free_from timestamptz NOT NULL DEFAULT now(), contents bytea NOT NULL);
CREATE INDEX ON q (free_from, id)
"""
ADD = "INSERT INTO q (contents) SELECT unnest($1::bytea[])"
POLL = """
WITH taken AS (SELECT id FROM q WHERE free_from <= now() ORDER BY free_from, id LIMIT $1::int FOR UPDATE SKIP LOCKED)
UPDATE q SET free_from = now() + interval '600 seconds' FROM taken WHERE q.id = taken.id RETURNING q.id, q.contents
"""
REMOVE = "DELETE FROM q WHERE id = $1::bigint"


def message(kind, content):
    return kind + NUMBER.pack(len(content) + 4) + content


def prepared(name, query):
    return message(b"P", name + b"\0" + query.encode() + b"\0" + b"\0\0")


def executed(name, value):
    """Bind a prepared statement to one value in binary, run it, and end the transaction."""
    bound = b"\0" + name + b"\0" + b"\0\1\0\1" + b"\0\1" + NUMBER.pack(len(value)) + value + b"\0\1\0\1"
    return message(b"B", bound) + message(b"E", b"\0" + NUMBER.pack(0)) + message(b"S", b"")


def array(contents, count):
    head = b"".join(NUMBER.pack(each) for each in (1, 0, BYTEA, count, 1))
    return head + (NUMBER.pack(len(contents)) + contents) * count


class Connection(InOrder):
    """A session; every call is a transaction of its own, and its answer ends with ReadyForQuery."""

    def __init__(self, port, role, load):
        super().__init__(port, role, load)
        who = NUMBER.pack(196_608) + b"user\0postgres\0database\0postgres\0\0"
        self.call(NUMBER.pack(len(who) + 4) + who)
        self.found = deque()
        self.removing = deque()
        self.rows = 0

    def prepare(self):
        """Have the statements ready; not before there is a table."""
        statements = ((b"a", ADD), (b"p", POLL), (b"r", REMOVE))
        self.call(b"".join(prepared(name, query) for name, query in statements) + message(b"S", b""))
        self.add = executed(b"a", array(self.load.contents, self.per_call))
        self.poll = executed(b"p", NUMBER.pack(self.per_call))

    def call(self, request):
        """Send something and wait until the server is ready for more."""
        self.socket.sendall(request)
        data = b""
        while not (len(data) >= 6 and data[-6:-1] == b"Z\0\0\0\5"):
            data += self.received()
            if data[:1] == b"E":
                raise Unexpected(f"{data[:200]}")

    def begin(self):
        if not hasattr(self, "poll"):
            self.prepare()
        super().begin()

    def request(self):
        if self.role == "add":
            return self.add
        if self.found:
            self.removing.append(True)
            return executed(b"r", self.found.popleft())
        self.removing.append(False)
        return self.poll

    def answers(self, data):
        completed, at, end = [], 0, len(data)
        while at + 5 <= end:
            kind, size = HEAD.unpack_from(data, at)
            if at + 1 + size > end:
                break
            if kind == b"D":
                self.rows += 1
                # Two columns: the id is 8 bytes after the count of columns and its own length.
                self.found.append(data[at + 11 : at + 19])
            elif kind == b"C" and self.removing and self.removing[0] and data[at + 5 : at + 14] != b"DELETE 1\0":
                raise Unexpected(f"a delete did {data[at + 5 : at + 20]}")
            elif kind == b"Z":
                completed.append(self.ended())
            elif kind == b"E":
                raise Unexpected(f"{data[at : at + 200]}")
            at += 1 + size
        return completed, data[at:]

    def ended(self):
        """The items that the call has completed which has ended."""
        if self.role == "add":
            return self.per_call
        rows, self.rows = self.rows, 0
        if self.removing.popleft():
            return 1
        if not rows and self.dry_ends:
            raise RanDry
        return 0


class Postgres(Peer):
    """PostgreSQL by its defaults: synchronous commits."""

    name = "postgres"
    says = "fsync before the answer (synchronous_commit on)"
    program = "postgres"
    connection_class = Connection
    user = "postgres"

    def found(self):
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda each: int(each.parts[-3]))
        return str(programs[-1]) if programs else None

    def prepare(self, port, directory):
        initdb = [str(Path(self.found()).with_name("initdb")), "-D", str(directory / "data")]
        subprocess.run(
            [*initdb, "-A", "trust", "-U", "postgres"],
            check=True,
            stdout=subprocess.DEVNULL,
            user=self.account(),
            cwd=directory,
        )

    def command(self, port, directory):
        options = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200")
        settings = [word for each in options for word in ("-c", each)]
        return [self.found(), "-D", str(directory / "data"), "-p", str(port), *settings]

    def ready(self, port):
        class Plain:
            window, items, kind, contents = 1, 1, "add", b""

        give_up = monotonic() + READY_SECONDS
        while True:
            try:
                connection = Connection(port, "add", Plain)
                break
            except Unexpected:
                # It listens before it is ready.
                if monotonic() > give_up:
                    raise
                sleep(0.1)
        connection.call(message(b"Q", TABLE.encode() + b"\0"))
        connection.socket.close()
