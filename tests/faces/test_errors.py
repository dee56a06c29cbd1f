"""Bad input, and servers that cannot answer, over each face: the right class, and one clear sentence."""

import socket
import threading
from contextlib import contextmanager, suppress

import pytest
from attrs import evolve

from queueber.api import Action, Settlement
from queueber.client_core.errors import CallTimedOut, NotConnected, OutcomeUnknown, ReplyTooLong
from queueber.client_core.options import Tls
from queueber.errors import InvalidRequest, Overloaded, QueueberError
from queueber.limits import DEFAULTS
from tests.support.waiting import until_in_loop


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("queueber://127.0.0.1/q?wait=3", "the URL has an unknown parameter 'wait'"),
        ("queueber://127.0.0.1:70000/q", "the port of the URL is '70000'; it must be a number from 1 to 65535"),
        ("queueber://127.0.0.1/q?timeout_ms=soon", "timeout_ms is 'soon'; it must be a whole number of ms"),
        ("queueber://me:secret@127.0.0.1/q", "the URL has a user or a password, and there is no login"),
        ("http://127.0.0.1/q", "the scheme of the URL is 'http'; it must be one of queueber,"),
        ("queueber://127.0.0.1/q?ca=/ca.pem", "ca needs TLS: the URL must begin with queueber+tls://"),
        ("queueber+tls://127.0.0.1/q?ca=/nowhere.pem", "/nowhere.pem: No such file or directory"),
        (9090, "url is 9090 (int); it must be text"),
    ],
)
async def test_a_wrong_url_is_refused_at_once(face, url, said):
    with pytest.raises(InvalidRequest) as refused:
        face.connect(url)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attempts": 0}, "attempts is 0 attempts; the least is 1"),
        ({"timeout_ms": 1.5}, "timeout_ms is 1.5 (float); it must be a whole number of ms"),
        ({"limits": 5}, "limits is 5 (int); it must be a queueber.limits.Limits or None"),
        ({"retry_policy": 5}, "retry_policy is 5 (int); it must be a function or None"),
        ({"resend_adds": 5}, "resend_adds is 5 (int); it must be True or False"),
        ({"tls": 5}, "tls is 5 (int); it must be a Tls or None"),
        ({"tls": Tls(key="key.pem")}, "key.pem: a key needs the certificate that it belongs to"),
    ],
)
async def test_a_wrong_option_is_refused_at_once(face, options, said):
    with pytest.raises(InvalidRequest) as refused:
        face.connect("queueber://127.0.0.1/q", **options)
    assert said in str(refused.value)


async def test_a_wrong_argument_is_the_error_of_its_call(face, url):
    async with face.client(url) as client:
        queue = client.queue()
        calls = [
            (queue.add("text"), "contents[0] is 'text' (str); it must be bytes, or another object with a buffer"),
            (queue.add(b"x", delay_ms=-1), "delay_ms is -1 ms; the least is 0"),
            (queue.add_items(b"x"), "items[0] is b'x' (bytes); it must be made with new_item"),
            (queue.poll(0), "n is 0 items; the least is 1"),
            (queue.poll(timeout_ms=0), "timeout_ms is 0 ms; the least is 1"),
            (queue.poll(session=b"short"), "session is 5 bytes; it must be 16"),
            (queue.remove(b"", b"l" * 16), "item_id is 0 bytes; it must be 16"),
            (queue.extend(b"l" * 16, 0), "lease_ms is 0 ms; the least is 1"),
            (
                queue.settle(Settlement(b"l" * 16, b"", Action.FAIL, None, "x" * 5_000)),
                "entries[0].error is 5,000 bytes",
            ),
            (queue.fail(b"i" * 16, b"l" * 16, "\ud800"), "error is not UTF-8"),
            (client.poll_any([]), "queues is 0 queues; it must be 1 to 64"),
            (client.attach(b"x"), "session is 1 byte; it must be 16"),
            (client.control("q").configure(colour=1), "there is no setting colour; it must be one of lease_ms,"),
            (client.control("q").peek(limit=0), "limit is 0 elements; the least is 1"),
            (client.queues(label=("a",)), "label is ('a',) (tuple); it must be a name and a value"),
            (client.admin.backup(""), "target is '' (str); it must be a path"),
        ]
        for call, said in calls:
            with pytest.raises(InvalidRequest) as refused:
                await call
            assert said in str(refused.value)
        names = {
            "": "the queue's name is empty",
            "x" * 300: "the queue's name is 300 bytes",
            5: "the queue's name is 5",
        }
        for name, said in names.items():
            with pytest.raises(InvalidRequest, match=said):
                client.queue(name)
        with pytest.raises(InvalidRequest, match="grace_ms is 5 ms; the least is 10,000"):
            client.session(5)
        with pytest.raises(InvalidRequest, match="on_lost is 5"):
            client.session(on_lost=5)


async def test_an_item_that_can_never_fit_is_refused(face, url):
    async with face.client(url) as client:
        with pytest.raises(InvalidRequest, match="contents is 9,000,000 bytes; the limit is 8,388,608"):
            await client.queue().add(bytes(9_000_000))
        with pytest.raises(InvalidRequest, match=r"the call is .* bytes; the limit is .*--limit-frame-bytes"):
            await client.queue().add(*[bytes(8_000_000)] * 3)
        assert len(await client.queue().add(bytes(3_000_000))) == 1


async def test_an_overloaded_server_is_one_that_passes(face, server, url):
    async with face.client(url) as client:
        with server.overloaded("add", times=1), pytest.raises(Overloaded):
            await client.queue().add(b"x")
        await client.queue().add(b"x")


async def test_a_server_that_is_away(face):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"queueber://127.0.0.1:{gone.getsockname()[1]}"
    async with face.client(f"{address}/q", attempts=1) as client:
        with pytest.raises(NotConnected) as away:
            await client.queue().add(b"x")
    # The words of Twisted are longer.
    assert str(away.value).startswith(f"cannot connect to {address}/q: Connection")
    assert "refused" in str(away.value)


async def test_a_host_without_an_address(face):
    async with face.client("queueber://no-such-host.invalid/q", attempts=1) as client:
        with pytest.raises(NotConnected, match=r"cannot connect to queueber://no-such-host\.invalid/q: "):
            await client.queue().add(b"x")


async def test_a_socket_that_is_not_there(face, tmp_path):
    async with face.client(f"queueber+unix://{tmp_path}/none", attempts=1) as client:
        with pytest.raises(NotConnected, match=f"cannot connect to queueber\\+unix://{tmp_path}/none: .*No such file"):
            await client.queue().add(b"x")


@contextmanager
def peer(reply, *, read=1):
    """Run a server that reads something, replies and closes, for each connection."""

    def serve():
        with suppress(OSError):
            while True:
                made, _ = listening.accept()
                with made, suppress(OSError):
                    for _ in range(read):
                        made.recv(65_536)
                    made.sendall(reply)
                    if not reply:
                        made.recv(65_536)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield f"queueber://127.0.0.1:{listening.getsockname()[1]}/q"
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("reply", "name"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "HTTP"),
        (b"-ERR unknown command\r\n-ERR unknown command\r\n", "a text protocol"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
        (bytes.fromhex("15030100020 20a".replace(" ", "")) + b"\0" * 8, "TLS"),
    ],
)
async def test_a_server_of_another_protocol(face, reply, name):
    with peer(reply) as url:
        async with face.client(url) as client:
            with pytest.raises(NotConnected, match=f"cannot connect to .*: this port speaks {name}"):
                await client.queue().add(b"x")


async def test_a_server_that_talks_nonsense(face):
    with peer(b"\0\0\0\0\1\0\0\0" + b"\xff" * 8) as url:
        async with face.client(url) as client:
            with pytest.raises(OutcomeUnknown, match="the server broke the protocol"):
                await client.queue().add(b"x")


async def test_a_server_that_closes_without_an_answer(face):
    with peer(b"", read=1) as url:
        async with face.client(url, timeout_ms=30_000) as client:
            with pytest.raises(QueueberError):
                await client.queue().remove(b"i" * 16, b"l" * 16, timeout_ms=200)


async def test_a_reply_beyond_the_client_s_own_limits(face, server, url, name):
    async with face.client(url) as client:
        await client.queue().add(bytes(200_000))
    async with face.client(url, limits=evolve(DEFAULTS, frame_bytes=100_000)) as client:
        with pytest.raises(ReplyTooLong, match="the items of this poll return to their queue"):
            await client.queue().poll()
        await until_in_loop(lambda: [item.state.name for item in server.items(name)] == ["READY"])


async def test_a_call_has_a_time_limit(face, server, url):
    async with face.client(url, timeout_ms=30_000) as client:
        await client.limits()
        with server.hanging(), pytest.raises(CallTimedOut, match="no answer within 50 ms") as late:
            await client.queue().add(b"x", timeout_ms=50)
        assert late.value.sent


async def test_the_time_limit_of_the_client_counts_for_each_call(face, server, url):
    async with face.client(f"{url}?timeout_ms=50") as client:
        with server.hanging(), pytest.raises(CallTimedOut, match="within 50 ms"):
            await client.queue().add(b"x")


async def test_a_call_without_a_connection_is_not_sent_within_its_time(face):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"queueber://127.0.0.1:{gone.getsockname()[1]}/q"
    async with face.client(url) as client:
        with pytest.raises(
            CallTimedOut, match="the call was not sent within 300 ms: there is no connection to"
        ) as late:
            await client.queue().add(b"x", timeout_ms=300)
        assert not late.value.sent


async def test_a_closed_client_makes_no_calls(face, url):
    async with face.client(url) as client:
        await client.limits()
        await client.close()
        with pytest.raises(NotConnected, match="the call was not sent: the client is closed"):
            await client.queue().add(b"x")
