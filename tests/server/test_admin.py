"""The methods of the control socket."""

import pytest
from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent

from queueber import api, rpc
from queueber.api import admin
from queueber.errors import Kind, StorageError
from queueber.process import directory_identity
from queueber.server.admin.handlers import AdminHandlers
from queueber.server.core.reserve import Reserve, Space
from queueber.server.net.rpc_factory import ControlFactory
from queueber.testing import InProcessServer


@define(eq=False, slots=False)
class Door:
    """A server with a control socket, and a client's connection to it."""

    server: InProcessServer
    backups: list = field(factory=list)
    threads: list = field(factory=list)

    def __attrs_post_init__(self):
        server = self.server
        self.reserve = Reserve(lambda: Space(70, 100), 30)
        self.reserve.measure()
        handlers = AdminHandlers(
            reactor=server.reactor,
            handlers=server.handlers,
            broker=server.broker,
            committer=server.committer,
            connections=server.connections,
            limits=server.limits,
            reserve=self.reserve,
            store=self,
            run=self.run,
            flush=server.flush_queue.flush,
        )
        self.factory = ControlFactory(evolve(server.factory.server, handlers=handlers))
        self.protocol = self.factory.buildProtocol(None)
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)
        self.connection = rpc.Connection(limits=server.limits)
        self.root = self.connection.bootstrap()

    def backup(self, target, progress):
        target.mkdir(exist_ok=True)
        self.backups.append((target, progress))

    def run(self, function, *arguments):
        done = Deferred()
        self.made = function(*arguments)
        self.threads.append(done)
        return done

    def ask(self, method, content=None, interface=admin.ADMIN_INTERFACE_ID):
        content = admin.write_no_params(method) if content is None else content
        question = self.connection.call(rpc.PromisedAnswer(self.root), interface, method, content)
        self.protocol.dataReceived(self.connection.data_to_send())
        return question

    def outcomes(self):
        self.server.settle()
        data, self.transport.io = self.transport.value(), type(self.transport.io)()
        return {event.question: event.outcome for event in self.connection.receive_data(data)}


@pytest.fixture
def door(server):
    return Door(server)


@pytest.fixture
def anywhere(tmp_path):
    return bytes(tmp_path / "x")


def back_up(door, path, seen=(0, 0)):
    return door.ask(admin.BACKUP, admin.write_backup_request(admin.BackupRequest(path, *seen)))


def test_stats(door, server):
    server.connect().add(b"one", b"two")
    server.settle()
    server.broker.limit_hits["connections"] += 2
    server.reactor.advance(1.5)
    question = door.ask(admin.SERVER_STATS)
    stats = admin.read_stats_response(door.outcomes()[question])
    assert (stats.items, stats.queues, stats.connections, stats.commits, stats.uptime_ms) == (2, 1, 2, 1, 1_500)
    assert (stats.free_bytes, stats.reserve_bytes, stats.refusing_adds) == (70, 30, False)
    assert stats.limit_hits == {"connections": 2}
    assert stats.version


def test_the_public_methods_are_there_too(door):
    items = api.AddRequest([api.NewItem(b"one", 0)])
    added = door.ask(api.ADD, api.write_add_request(items), api.QUEUE_INTERFACE_ID)
    named = door.ask(api.QUEUE, api.write_queue_request("mail"), api.BROKER_INTERFACE_ID)
    unknown = door.ask(99, admin.write_no_params(admin.SERVER_STATS))
    outcomes = door.outcomes()
    assert len(api.read_add_response(outcomes[added]).ids) == 1
    assert api.read_queue_response(outcomes[named]) is not None
    assert outcomes[unknown].kind == Kind.UNIMPLEMENTED
    assert door.server.handlers.outstanding == 0


def test_a_queue_from_the_control_socket_is_an_ordinary_one(door):
    named = door.ask(api.QUEUE, api.write_queue_request("mail"), api.BROKER_INTERFACE_ID)
    queue = rpc.ImportedCap(api.read_queue_response(door.outcomes()[named]))
    items = api.write_add_request(api.AddRequest([api.NewItem(b"one", 0)]))
    added = door.connection.call(queue, api.QUEUE_INTERFACE_ID, api.ADD, items)
    stats = door.connection.call(
        queue, admin.ADMIN_INTERFACE_ID, admin.SERVER_STATS, admin.write_no_params(admin.SERVER_STATS)
    )
    door.protocol.dataReceived(door.connection.data_to_send())
    outcomes = door.outcomes()
    assert len(api.read_add_response(outcomes[added]).ids) == 1
    assert outcomes[stats].kind == Kind.UNIMPLEMENTED


def test_other_connections_do_not_have_the_administrator_s_methods(server):
    peer = server.connect()
    peer.send()
    question = peer.connection.call(
        peer.root, admin.ADMIN_INTERFACE_ID, admin.SERVER_STATS, admin.write_no_params(admin.SERVER_STATS)
    )
    peer.send()
    server.settle()
    assert peer.receive()[question].kind == Kind.UNIMPLEMENTED


def test_it_is_open_at_the_limit_of_connections(make_server):
    server = make_server(connections=1)
    server.connect().send()
    door = Door(server)
    question = door.ask(admin.SERVER_STATS)
    assert admin.read_stats_response(door.outcomes()[question]).connections == 2


def test_a_consistent_server_has_no_findings(door):
    sound = door.ask(admin.CHECK)
    assert admin.read_check_response(door.outcomes()[sound]).findings == []


@pytest.mark.parametrize(("reason", "finding"), [(["held twice"], "held twice"), ([], "the state is inconsistent")])
def test_a_check_reports_the_inconsistency(door, server, monkeypatch, reason, finding):
    def wrong():
        server.reactor.rightNow += 0.25
        raise AssertionError(*reason)

    monkeypatch.setattr(AdminHandlers.log, "failure", lambda *args, **kwargs: None)
    monkeypatch.setattr(server.broker, "check", wrong)
    question = door.ask(admin.CHECK)
    monkeypatch.undo()
    checked = admin.read_check_response(door.outcomes()[question])
    assert (checked.findings, checked.took_ms) == ([f"{finding} (wrong: raise AssertionError(*reason))"], 250)


def test_a_large_check_must_be_forced(door, server, monkeypatch):
    """The server serves no calls meanwhile."""
    monkeypatch.setattr("queueber.server.admin.handlers.CHECKED_MAX", 4)
    server.connect().add(*[b"x"] * 5)
    server.settle()
    asked, forced = door.ask(admin.CHECK), door.ask(admin.CHECK, admin.write_check_request(force=True))
    outcomes = door.outcomes()
    assert outcomes[asked].reason.startswith(
        "there are 6 objects to check, and no calls are served meanwhile; beyond 4 objects"
    )
    assert admin.read_check_response(outcomes[forced]).findings == []


@pytest.mark.parametrize("known", [True, False])
def test_a_backup_is_answered_when_it_is_done(door, tmp_path, known):
    question = back_up(door, bytes(tmp_path / "x"), directory_identity(tmp_path) if known else (0, 0))
    assert question not in door.outcomes()
    assert door.backups[0][0] == tmp_path / "x"
    door.threads[0].callback(door.made)
    found = (tmp_path / "x").stat()
    assert admin.read_backup_response(door.outcomes()[question]) == admin.BackupMade(found.st_dev, found.st_ino)
    assert door.server.handlers.outstanding == 0


def test_the_log_has_the_beginning_and_the_end_of_a_backup(door, tmp_path):
    (tmp_path / "other").mkdir()
    target = tmp_path / "x"
    with capturedLogs() as events:
        back_up(door, bytes(target))
        door.threads[0].callback(door.made)
        back_up(door, bytes(target), directory_identity(tmp_path / "other"))
        door.threads[1].callback(door.made)
    assert [formatEvent(event) for event in events if event["log_namespace"].endswith("AdminHandlers")] == [
        f"Backing up to {target}",
        f"Backed up to {target}",
        f"Backing up to {target}",
        f"Not backed up: {target} is another directory for the client",
    ]


def test_no_backup_is_made_to_a_directory_that_the_client_does_not_see(door, tmp_path):
    (tmp_path / "other").mkdir()
    question = back_up(door, bytes(tmp_path / "x"), directory_identity(tmp_path / "other"))
    door.threads[0].callback(door.made)
    assert admin.read_backup_response(door.outcomes()[question]) == admin.BackupMade(elsewhere=True)
    assert door.backups == []
    back_up(door, bytes(tmp_path / "x"), directory_identity(tmp_path))
    assert len(door.backups) == 1


def test_the_progress_of_a_backup_can_be_queried(door, anywhere):
    before = door.ask(admin.BACKUP_PROGRESS)
    back_up(door, anywhere)
    door.backups[0][1](3, 9)
    during = door.ask(admin.BACKUP_PROGRESS)
    door.threads[0].callback(door.made)
    after = door.ask(admin.BACKUP_PROGRESS)
    outcomes = door.outcomes()
    assert [admin.read_progress_response(outcomes[each]) for each in (before, during, after)] == [
        (0, 0),
        (3, 9),
        (0, 0),
    ]


def test_there_is_one_backup_at_a_time(door, anywhere):
    back_up(door, anywhere)
    second = back_up(door, anywhere)
    assert door.outcomes()[second].kind == Kind.OVERLOADED
    door.threads[0].callback(door.made)
    back_up(door, anywhere)
    assert len(door.backups) == 2


def test_a_failed_backup_has_a_reason_and_can_be_repeated(door, anywhere):
    question = back_up(door, anywhere)
    door.threads[0].errback(StorageError("no room in /tmp/x"))
    outcome = door.outcomes()[question]
    assert (outcome.kind, outcome.reason) == (Kind.FAILED, "no room in /tmp/x")
    back_up(door, anywhere)
    assert len(door.backups) == 2


@pytest.mark.parametrize("path", [b"relative", b"", b"/tmp/\0x"])
def test_a_path_that_is_not_absolute_is_refused(door, path):
    question = back_up(door, path)
    outcome = door.outcomes()[question]
    assert outcome.kind == Kind.FAILED
    assert "must be absolute" in outcome.reason


def test_parameters_that_cannot_be_read_end_the_connection(door):
    # A pointer out of the segment.
    door.ask(admin.BACKUP, (1 << 48 | 200 << 2).to_bytes(8, "little"))
    assert door.transport.disconnecting
    assert door.server.handlers.outstanding == 0
