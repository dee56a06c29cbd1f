"""The server in the process of a test."""

from twisted.internet.testing import StringTransport

from queueber import api, rpc
from queueber.api import admin
from queueber.broker.model import LOWEST
from queueber.limits import Limits
from queueber.server.core.ids import RandomIds
from queueber.testing import InProcessServer


def call(server, factory, interface, method, content):
    """Call a method of the object that a new connection of *factory* bootstraps; return the outcome."""
    protocol = factory.buildProtocol(None)
    transport = StringTransport()
    protocol.makeConnection(transport)
    connection = rpc.Connection(limits=server.limits)
    question = connection.call(rpc.PromisedAnswer(connection.bootstrap()), interface, method, content)
    protocol.dataReceived(connection.data_to_send())
    server.settle()
    events = connection.receive_data(transport.value())
    return next(event.outcome for event in events if event.question == question)


def add_request(contents):
    return api.write_add_request(api.AddRequest([api.NewItem(contents, 0)]))


def add(server, contents):
    outcome = call(server, server.factory, api.QUEUE_INTERFACE_ID, api.ADD, add_request(contents))
    return api.read_add_response(outcome).ids


def test_an_added_item_is_committed_to_the_store_in_memory():
    server = InProcessServer()
    (item,) = add(server, b"contents")
    assert server.committer.commits == 1
    (queue,) = server.store.recover().queues
    scan = server.store.scan(queue.number, LOWEST, items_max=2, bytes_max=100)
    assert [(row.key.id, row.contents) for row in scan.items] == [(item, b"contents")]


def test_ids_can_be_injected():
    first, second = (InProcessServer(ids=RandomIds(lambda count: b"\1" * count)) for _ in range(2))
    assert add(first, b"x") == add(second, b"x")


def test_limits_and_other_settings_are_those_of_a_real_server():
    server = InProcessServer(Limits(contents_bytes=1), coalesce_batch_window_ms=5)
    refused = call(server, server.factory, api.QUEUE_INTERFACE_ID, api.ADD, add_request(b"xx"))
    assert "the limit is 1" in refused.reason
    plan = server.broker.add(server.broker.queue("default"), [[(b"x", 0, None)]], server.clock.now())
    server.committer.submit(plan, lambda _: None)
    server.turn()
    assert not server.pool.waiting
    server.reactor.advance(0.005)
    assert server.pool.waiting == 1


def test_periodic_work_runs_once_its_timers_are_started():
    server = InProcessServer()
    for timer in server.parts.timers:
        timer.startService()
    for _ in range(20):
        server.reactor.advance(0.25)
        server.settle()
    for timer in server.parts.timers:
        timer.stopService()
    assert not server.deaths
    assert server.parts.reserve.space.total > 0


def test_the_control_socket_is_served_too_but_makes_no_backup(tmp_path):
    server = InProcessServer()
    stats = call(
        server,
        server.parts.control,
        admin.ADMIN_INTERFACE_ID,
        admin.SERVER_STATS,
        admin.write_no_params(admin.SERVER_STATS),
    )
    assert admin.read_stats_response(stats).connections == 1
    request = admin.write_backup_request(admin.BackupRequest(bytes(tmp_path / "copy")))
    outcome = call(server, server.parts.control, admin.ADMIN_INTERFACE_ID, admin.BACKUP, request)
    assert outcome.reason == "a store in memory cannot be backed up"


def test_the_figures_of_its_disk_are_reported_without_an_engine():
    server = InProcessServer()
    found = []
    server.parts.diagnostics.disk().addCallback(found.append)
    server.settle()
    assert found[0].properties == {}
    assert found[0].free_bytes > 0
