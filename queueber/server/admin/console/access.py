"""
Access control of the console.

The console has all rights of the server's user, so only two kinds of addresses are
permitted: a Unix socket to which only that user can connect, and loopback TCP with
a password.
"""

import hmac
import os
import re
import stat
from pathlib import Path

from attrs import define, field, frozen

from queueber.process import expanded_endpoint
from queueber.server.net.listeners import Listen, parse_listen, usable_listen

OWNER_ONLY = 0o600
PASSWORD_BYTES_MIN = 12
_PASSWORD_FILE_BYTES_MAX = 4096


class PasswordFileError(ValueError):
    """A password file that others can read, or that has no user and password."""


@frozen
class Password:
    """The credentials for a login."""

    user: bytes
    password: bytes

    def __repr__(self) -> str:
        return f"Password({self.user!r})"

    def matches(self, user: bytes, password: bytes) -> bool:
        """Return whether the credentials match, in constant time."""
        return hmac.compare_digest(self.user + b":" + self.password, user + b":" + password)


@define
class PasswordFile:
    """
    The file with a line ``user:password``.

    It is read at each login.  A relative path is resolved at the first reading, because ``--rundir`` of twistd changes
    the directory later.  Once ``--uid`` or ``--chroot`` of twistd is in effect, it belongs to another user or is out of
    reach, and the credentials that were read at the start stay valid.
    """

    path: Path
    _first: Password | None = field(default=None, init=False, eq=False)
    """The credentials of the first reading, which is that at the start."""

    _first_reader: object = field(default=None, init=False, eq=False)

    def read(self) -> Password:
        """
        Return the user and password.

        Raises:
            PasswordFileError: as for `read_password`.
        """
        if self._first is not None and not self.is_in_reach:
            return self._first
        found = read_password(self.path)
        if self._first is None:
            self._first, self._first_reader = found, _reader()
            self.path = self.path.absolute()
        return found

    @property
    def is_in_reach(self) -> bool:
        """Whether the process has the user and the root directory of the first reading."""
        return self._first_reader == _reader()


def _reader() -> object:
    """Return what decides which file a path names, and whether it may be read: the user and the root directory."""
    root = Path("/").stat()
    return os.geteuid(), root.st_dev, root.st_ino


@frozen
class ConsoleAccess:
    """The address of the console, and its password file, which a Unix socket has not."""

    listen: Listen
    password_file: PasswordFile | None = None


def parse_access(text: str, password_file: Path | None) -> ConsoleAccess:
    """
    Return the access for the values of ``--manhole`` and ``--manhole-password-file``.

    Raises:
        ValueError: the address is not permitted or not usable, or lacks a password file.
    """
    if text.startswith("unix:"):
        if password_file is not None:
            raise ValueError(f"{text} needs no --manhole-password-file: only its owner can connect to a Unix socket")
        return ConsoleAccess(_socket(text))
    listen = parse_listen(text)
    if not listen.endpoint.startswith("tcp") or listen.exposed:
        raise ValueError(f"{text}: it must be unix:PATH, or an address of this machine such as 127.0.0.1:9092")
    if password_file is None:
        raise ValueError(f"{text}: all users of this machine can reach it, so it needs --manhole-password-file")
    usable_listen(listen.endpoint)
    return ConsoleAccess(listen, PasswordFile(password_file))


def _socket(text: str) -> Listen:
    """Return a socket with mode 600, which replaces a socket that a killed server left."""
    mode = re.search(r":mode=([0-7]*)", text)
    if mode is not None and int(mode[1] or "0", 8) != OWNER_ONLY:
        raise ValueError(f"{text}: its mode is always {OWNER_ONLY:o}")
    bare = re.sub(r":(mode|lockfile)=[^:]*", "", expanded_endpoint(text))
    listen = Listen(text, f"{bare}:mode={OWNER_ONLY:o}:lockfile=1", exposed=False)
    usable_listen(listen.endpoint)
    return listen


def read_password(path: Path) -> Password:
    """
    Return the user and password in the file *path*.

    Raises:
        PasswordFileError: other users may read or write it, or it is not one line ``user:password``.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as why:
        raise PasswordFileError(f"{path}: {why.strerror}") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise PasswordFileError(f"{path} is not a file")
        if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid != os.geteuid():
            raise PasswordFileError(
                f"{path}: it must belong to the server's user and be readable by that user only (chmod 600)"
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
