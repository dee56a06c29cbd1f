"""The faults of a test server."""

import socket

import pytest
from waiting import in_thread, wait_for_poll

from queueber.client import NotConnected, OutcomeUnknown
from queueber.errors import Overloaded


def test_a_lost_reply_leaves_the_effect_of_its_call(server, mail, client_of):
    fault = server.lose_next_reply()
    with pytest.raises(OutcomeUnknown):
        mail.add(b"x")
    assert fault.happened == 1
    server.assert_added("mail", contents=b"x", count=1)
    assert client_of(server).queue("mail").poll().items


def test_the_reply_of_a_chosen_method_is_lost(server, mail):
    """The client polls again.  The item of the lost reply is leased all the same."""
    fault = server.lose_next_reply("poll")
    mail.add(b"x")
    assert not mail.poll(wait_ms=0).items
    assert (fault.happened, server.items("mail")[0].state.name) == (1, "LEASED")
    assert server.end_leases("mail") == 1
    assert mail.poll().items[0].attempt == 2


def test_the_reply_to_a_poll_that_waits_already_is_lost(server, client_of, mail):
    with in_thread(client_of(server).queue("mail").poll) as polling:
        wait_for_poll(server)
        fault = server.lose_next_reply("poll")
        mail.add(b"x")
        wait_for_poll(server)
        assert fault.happened == 1
        server.end_leases("mail")
    assert polling.result().items[0].attempt == 2


def test_a_fault_that_ended_meets_nothing(server, mail):
    with server.lose_next_reply() as fault:
        pass
    mail.add(b"x")
    assert fault.happened == 0


def test_unknown_methods_have_no_faults(server):
    with pytest.raises(ValueError, match="no method is named 'push'; there are add, "):
        server.lose_next_reply("push")


def test_an_overloaded_server_refuses_calls(server, mail):
    with server.overloaded("add", times=2) as fault:
        for _ in range(2):
            with pytest.raises(Overloaded, match="as the test has it"):
                mail.add(b"x")
        mail.add(b"x")
        assert fault.happened == 2
    with server.overloaded():
        with pytest.raises(Overloaded):
            mail.poll()
        assert len(server.items("mail")) == 1
    assert mail.poll().items


def test_a_hanging_server_answers_when_it_goes_on(server, mail):
    mail.add(b"first")
    hanging = server.hanging()
    with in_thread(lambda: mail.add(b"second")) as adding:
        assert len(server.added("mail")) == 1
        server.advance(3_600)
        assert not adding.done()
        hanging.end()
    assert len(server.added("mail")) == 2


def test_a_hanging_server_sends_nothing(server, client_of, mail):
    mail.add(b"x", delay_ms=60_000)
    with in_thread(client_of(server).queue("mail").poll) as polling:
        wait_for_poll(server)
        hanging = server.hanging()
        server.advance(60)
        assert server.items("mail")[0].lease
        with pytest.raises(TimeoutError):
            polling.result(0.05)
        hanging.end()
    assert polling.result().items


def test_connections_to_a_hanging_server_are_accepted_and_get_nothing(server):
    with server.hanging(), socket.socket(socket.AF_UNIX) as client:
        client.connect(server.path)
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_a_server_that_is_down_keeps_its_items(server, mail, client_of):
    mail.add(b"x")
    with server.down():
        with pytest.raises((OutcomeUnknown, NotConnected)):
            mail.add(b"y")
        with pytest.raises(NotConnected):
            client_of(server).queue("mail").add(b"z")
    assert [item.contents for item in client_of(server).queue("mail").poll(9).items] == [b"x"]


def test_refused_connections_leave_the_open_ones(server, mail, client_of):
    mail.add(b"x")
    with server.refuse_connections():
        with pytest.raises(NotConnected):
            client_of(server).queue("mail").add(b"y")
        mail.add(b"z")
    client_of(server).queue("mail").add(b"y")
    assert [item.contents for item in server.items("mail")] == [b"x", b"z", b"y"]


def test_dropped_connections_are_counted(server, mail, client_of):
    assert server.drop_connections() == 0
    mail.add(b"x")
    assert server.drop_connections() == 1
    client_of(server).queue("mail").add(b"y")


def test_a_lease_is_ended_by_its_id_or_its_item(server, mail):
    mail.add(b"a", b"b")
    first, second = mail.poll(), mail.poll()
    assert server.end_lease(first.lease)
    assert not server.end_lease(first)
    (leased,) = [item for item in server.items("mail") if item.lease]
    assert server.end_lease(leased)
    assert not mail.remove(first.items[0].id, first.lease)
    assert not mail.remove(second.items[0].id, second.lease)
    assert [item.attempts for item in server.items("mail")] == [1, 1]


def test_a_server_listens_on_tcp_again_at_the_same_port(client_of):
    from queueber.testing import TestServer  # noqa: PLC0415

    with TestServer(tcp=True) as server:
        port = server.port
        with server.down(), pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        assert server.port == port
        client_of(server).queue("mail").add(b"x")
        assert server.url("mail") == f"queueber://127.0.0.1:{port}/mail"


def test_faults_may_outlast_their_server(server):
    faults = [server.hanging(), server.down(), server.overloaded(), server.silence_clients()]
    server.stop()
    for each in faults:
        each.end()
