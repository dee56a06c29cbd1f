"""The options for looking into a running server, and what they make."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from attrs import frozen

from queueber.server.admin.console.access import Access, PasswordFileUnusable, parse_access
from queueber.server.config.spec import Complaints, Option, path, text
from queueber.server.net.listeners import Listen, usable_listen


@frozen
class Views:
    """Where one can look in."""

    pages: Listen | None = None
    console: Access | None = None


NOWHERE = Views()


def _pages(value: str) -> Listen:
    listen = usable_listen(value)
    if find_spec("prometheus_client") is None:
        raise ValueError("needs the extra `http`: pip install 'queueber[http]'")
    return listen


VIEWING = (
    Option(
        name="http",
        read=_pages,
        default=None,
        shown="nowhere",
        says="Address for /metrics, /livez and /readyz over HTTP",
        accepts="HOST:PORT, [v6]:PORT or an endpoint string",
    ),
    Option(
        name="manhole",
        read=text,
        default=None,
        shown="nowhere",
        says="Address of a debugging console, a Python shell with the rights of the server's user",
        accepts="unix:PATH, or a local address with a password file",
    ),
    Option(
        name="manhole-password-file",
        read=path,
        default=None,
        shown="none",
        says="Login of a debugging console that is not on a Unix socket",
        accepts="a file with one line, user:password, readable by the server's user only",
    ),
)


def views_from(value: Mapping[str, Any], complaints: Complaints) -> Views:
    """What the options make together; *complaints* gets what contradicts, or lets in others than it should."""
    pages = value["http"]
    if pages is not None and pages.exposed and not value["insecure-plaintext"]:
        reason = f"--http {pages.text}: plaintext beyond this machine needs --insecure-plaintext"
        complaints.append((("http", "insecure-plaintext"), reason))
    if value["manhole"] is None:
        if value["manhole-password-file"] is not None:
            complaints.append((("manhole-password-file", "manhole"), "--manhole-password-file needs --manhole"))
        return Views(pages)
    try:
        access = parse_access(value["manhole"], value["manhole-password-file"])
        usable_listen(access.listen.endpoint)
    except PasswordFileUnusable as why:
        complaints.append((("manhole-password-file",), f"--manhole-password-file {why}"))
        return Views(pages)
    except ValueError as why:
        complaints.append((("manhole", "manhole-password-file"), f"--manhole {why}"))
        return Views(pages)
    return Views(pages, access)
