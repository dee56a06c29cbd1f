"""
Who may reach the console.

Whoever does can do all that the server's user can, so there are two ways in
and no more: a Unix socket that only that user can connect to, and loopback TCP
with a password.
"""

import hmac
import os
import re
import stat
from pathlib import Path

from attrs import frozen

from queueber.paths import expanded_endpoint
from queueber.server.net.listeners import Listen, parse_listen

OWNER_ONLY = 0o600
PASSWORD_BYTES_MIN = 12
_PASSWORD_FILE_BYTES_MAX = 4096


class PasswordFileError(ValueError):
    """A password file that lets in others, or has no user and password."""


@frozen
class ConsoleAccess:
    """Where the console listens, and whom it lets in."""

    listen: Listen
    password_file: Path | None = None
    """With a line ``user:password``; None on a Unix socket."""


def parse_access(text: str, password_file: str | None) -> ConsoleAccess:
    """
    What the options ask for.

    Raises:
        PasswordFileError: from `read_password`.
        ValueError: that would let in others, or nobody.
    """
    if text.startswith("unix:"):
        if password_file is not None:
            raise ValueError(f"{text} needs no --manhole-password-file: a Unix socket is its owner's alone")
        return ConsoleAccess(_socket(text))
    listen = parse_listen(text)
    if not listen.endpoint.startswith("tcp") or listen.exposed:
        raise ValueError(f"{text}: it must be unix:PATH, or an address of this machine such as 127.0.0.1:9092")
    if password_file is None:
        raise ValueError(f"{text}: everybody on this machine can reach it, so it needs --manhole-password-file")
    path = Path(password_file)
    read_password(path)
    return ConsoleAccess(listen, path)


def _socket(text: str) -> Listen:
    """The socket with an owner's mode, whatever Twisted's default, and in the place of one that a kill left behind."""
    mode = re.search(r":mode=([0-7]*)", text)
    if mode is not None and int(mode[1] or "0", 8) != OWNER_ONLY:
        raise ValueError(f"{text}: its mode is always {OWNER_ONLY:o}")
    bare = re.sub(r":(mode|lockfile)=[^:]*", "", expanded_endpoint(text))
    return Listen(text, f"{bare}:mode={OWNER_ONLY:o}:lockfile=1", exposed=False)


@frozen
class Password:
    """Who may log in."""

    user: bytes
    password: bytes

    def __repr__(self) -> str:
        return f"Password({self.user!r})"

    def fits(self, user: bytes, password: bytes) -> bool:
        """Whether these are the two, in a time that does not tell how much of them is right."""
        return hmac.compare_digest(self.user + b":" + self.password, user + b":" + password)


def read_password(path: Path) -> Password:
    """
    The user and password in *path*.

    Raises:
        PasswordFileError: others may read or have written it, or it is not one line of that form.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as why:
        raise PasswordFileError(f"{path}: {why.strerror}") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise PasswordFileError(f"{path} is no file")
        if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid != os.geteuid():
            raise PasswordFileError(
                f"{path}: it must belong to the server's user and be readable by nobody else (chmod 600)"
            )
        content = os.read(descriptor, _PASSWORD_FILE_BYTES_MAX)
    finally:
        os.close(descriptor)
    user, colon, password = content.rstrip(b"\r\n").partition(b":")
    if not user or not colon or b"\n" in content.rstrip(b"\r\n"):
        raise PasswordFileError(f"{path}: it must be one line, user:password")
    if len(password) < PASSWORD_BYTES_MIN:
        raise PasswordFileError(f"{path}: the password must have at least {PASSWORD_BYTES_MIN} bytes")
    return Password(user, password)
