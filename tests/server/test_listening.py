"""What the text of --listen means."""

import pytest

from queueber.server.listening import parse_listen
from queueber.server.options import Options


@pytest.mark.parametrize(
    ("text", "endpoint", "exposed"),
    [
        ("127.0.0.1:9090", "tcp:9090:interface=127.0.0.1:backlog=4096", False),
        ("localhost:1", "tcp:1:interface=127.0.0.1:backlog=4096", False),
        ("0.0.0.0:9090", "tcp:9090:interface=0.0.0.0:backlog=4096", True),
        (":9090", "tcp:9090:interface=:backlog=4096", True),
        ("[::1]:9090", "tcp6:9090:interface=\\:\\:1:backlog=4096", False),
        ("[::]:9090", "tcp6:9090:interface=\\:\\::backlog=4096", True),
        ("tcp:9090", "tcp:9090:backlog=4096", True),
        ("tcp:9090:interface=127.0.0.1:backlog=5", "tcp:9090:interface=127.0.0.1:backlog=5", False),
        ("tcp6:9090:interface=\\:\\:1", "tcp6:9090:interface=\\:\\:1:backlog=4096", False),
        ("unix:/run/q.sock", "unix:/run/q.sock:mode=660", False),
        ("unix:/run/q.sock:mode=600", "unix:/run/q.sock:mode=600", False),
        ("systemd:domain=UNIX:name=q", "systemd:domain=UNIX:name=q", False),
        ("ssl:9090:privateKey=k", "ssl:9090:privateKey=k", False),
        ("haproxy:tcp:9090", "haproxy:tcp:9090:backlog=4096", True),
        ("haproxy:unix:/run/q.sock", "haproxy:unix:/run/q.sock:mode=660", False),
        ("systemd:domain=INET:name=q", "systemd:domain=INET:name=q", True),
    ],
)
def test_short_forms_and_endpoint_strings(text, endpoint, exposed):
    listen = parse_listen(text)

    assert (listen.text, listen.endpoint, listen.exposed) == (text, endpoint, exposed)


def test_defaults_are_those_of_the_help():
    options = Options(environment={})
    options.parseOptions([])
    settings = options.settings

    assert [listen.text for listen in settings.listen] == ["127.0.0.1:9090"]
    assert (settings.claim.polls, settings.claim.items, settings.window_ms) == (64, 512, 0)
    assert settings.workers >= 2
    assert (settings.durability, settings.encoding) == ("fsync", "unpacked")
