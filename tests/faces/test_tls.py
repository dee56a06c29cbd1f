"""TLS of the faces without Twisted, to a real server.  That of Twisted is in `tests/process`."""

import pytest

import queueber.aio
import queueber.sync
from queueber.client_core.errors import NotConnected
from queueber.client_core.options import Tls
from queueber.errors import InvalidRequest
from tests.faces.conftest import Face
from tests.process.certificates import Authority
from tests.support.server_process import Server
from tests.sync.test_processes import in_child

pytestmark = pytest.mark.slow

HOST = "IP:127.0.0.1,DNS:localhost"


@pytest.fixture(params=["aio", "sync"])
def face(request):
    return Face(request.param, getattr(queueber, request.param))


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def files(authority):
    """The certificates of a server and of clients."""
    return {
        "server": authority.sign("server", alternative=HOST),
        "nameless": authority.sign("localhost"),
        "client": authority.sign("client", alternative="DNS:client"),
        "other": Authority(authority.folder / "other").sign("client", alternative="DNS:client"),
    }


@pytest.fixture(scope="module")
def secured(authority, files, tmp_path_factory):
    """Servers that ask for no certificate, and for one of the authority; their ports."""
    folder = tmp_path_factory.mktemp("servers")

    def started(name, files, *options):
        certificate, key = files
        listen = (f"--listen=unix:{folder}/{name}.sock", "--listen-tls=127.0.0.1:0")
        return Server(folder / name, *listen, f"--tls-certificate={certificate}", f"--tls-key={key}", *options)

    with (
        started("open", files["server"]) as first,
        started("mutual", files["server"], f"--tls-client-ca={authority.pem}") as mutual,
        started("nameless", files["nameless"]) as nameless,
    ):
        servers = {"open": first, "mutual": mutual, "nameless": nameless}
        yield {name: int(each.line(r"Listening on 127.0.0.1:(\d+) with TLS")[1]) for name, each in servers.items()}


async def test_a_trusted_server_is_used(face, secured, authority):
    async with face.client(f"queueber+tls://localhost:{secured['open']}/q?ca={authority.pem}") as client:
        queue = client.queue()
        await queue.add(b"x", bytes(1_000_000))
        async with await queue.poll() as item:
            assert item.contents == b"x"
        (item,) = (await queue.poll()).items
        assert len(item.contents) == 1_000_000
        await item.remove()


async def test_a_client_shows_its_certificate(face, secured, authority, files):
    certificate, key = files["client"]
    tls = Tls(ca=authority.pem, certificate=certificate, key=key)
    async with face.client(f"127.0.0.1:{secured['mutual']}", tls=tls) as client:
        assert len(await client.queue().add(b"x")) == 1


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("", "the server's certificate is not trusted: unable to get local issuer certificate"),
        ("?ca={ca}&server_name=other.example", "the server's certificate is not for other.example"),
    ],
)
async def test_a_server_that_is_not_trusted_is_refused(face, secured, authority, parameters, said):
    url = f"queueber+tls://127.0.0.1:{secured['open']}/q{parameters.format(ca=authority.pem)}"
    async with face.client(url) as client:
        with pytest.raises(NotConnected) as refused:
            await client.limits()
        assert str(refused.value).endswith(said)


async def test_a_certificate_without_alternative_names_is_for_no_host(face, secured, authority):
    async with face.client(f"queueber+tls://localhost:{secured['nameless']}/q?ca={authority.pem}") as client:
        with pytest.raises(NotConnected, match="the server's certificate is not for localhost"):
            await client.limits()


async def test_the_server_s_refusal_of_a_client_is_understood(face, secured, authority, files):
    certificate, key = files["other"]
    url = f"queueber+tls://127.0.0.1:{secured['mutual']}/q?ca={authority.pem}"
    for parameters, said in (
        ("", "the server asks for a client certificate, and none was sent"),
        (f"&certificate={certificate}&key={key}", "the server does not trust the authority that made this client's"),
    ):
        async with face.client(url + parameters) as client:
            with pytest.raises(NotConnected, match=said):
                await client.limits()


async def test_ports_with_and_without_tls_differ(face, secured, authority):
    async with face.client(f"queueber://127.0.0.1:{secured['open']}/q") as client:
        with pytest.raises(NotConnected, match="this port speaks TLS"):
            await client.limits()


async def test_a_plain_port_speaks_no_tls(face, server, authority):
    async with face.client(f"queueber+tls://127.0.0.1:{server.port}/q?ca={authority.pem}", attempts=1) as client:
        with pytest.raises(NotConnected, match=r"this port does not speak TLS|ended during the TLS handshake"):
            await client.limits()


async def test_files_that_cannot_be_used_are_named_at_once(face, authority, files, tmp_path):
    certificate, key = files["client"]
    for tls, said in (
        (Tls(ca=tmp_path / "none"), "none: No such file or directory"),
        (Tls(ca=key), "client.key: it holds no certificate in PEM, only PRIVATE KEY"),
        (Tls(certificate=certificate), "client.pem: it holds no private key in PEM, only CERTIFICATE"),
        (Tls(server_name="a..b"), "'a..b' is not a name that a certificate can have"),
    ):
        with pytest.raises(InvalidRequest, match=said):
            face.connect("127.0.0.1:1", tls=tls)
    with pytest.raises(InvalidRequest, match="TLS needs a server_name"):
        face.connect("unix:/run/socket", tls=Tls())


def test_a_forked_process_leaves_the_tls_of_its_parent_alone(secured, authority):
    with queueber.sync.connect(f"queueber+tls://localhost:{secured['open']}/fork?ca={authority.pem}") as client:
        queue = client.queue()
        queue.add(b"parent")
        assert in_child(lambda: len(queue.add(b"child"))) == 1
        queue.add(b"parent again")
        assert [item.contents for item in queue.poll(5)] == [b"parent", b"child", b"parent again"]
