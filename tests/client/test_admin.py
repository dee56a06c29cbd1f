"""Administrative calls, and the check that a backup is visible to the client."""

import os
import re

import pytest
from twisted.internet.defer import succeed

from queueber.api import admin
from queueber.client.admin import Admin
from queueber.client.errors import DifferentDirectory
from queueber.process import directory_identity


class Server:
    """A connection to a server that makes backups, with its answer."""

    def __init__(self):
        self.made = None
        self.asked = []

    def call(self, target, method, content, read, *, interface, wait_ms=0):
        self.asked.append((method, interface, content))
        return succeed(self.made)


def outcome(deferred):
    found = []
    deferred.addBoth(found.append)
    return getattr(found[0], "value", found[0])


@pytest.fixture
def server():
    return Server()


def test_a_backup_is_there_when_it_is_in_sight(server, tmp_path):
    target = tmp_path / "a" / "b"
    target.mkdir(parents=True)
    for server.made in (admin.BackupMade(*directory_identity(target)), admin.BackupMade()):
        assert outcome(Admin(server).backup(target)) is None
    request = admin.BackupRequest(os.fsencode(target), *directory_identity(target))
    assert server.asked[0] == (admin.BACKUP, admin.ADMIN_INTERFACE_ID, admin.write_backup_request(request))


def test_a_backup_sends_the_identity_of_the_nearest_directory(server, tmp_path):
    server.made = admin.BackupMade(elsewhere=True)
    assert isinstance(outcome(Admin(server).backup(tmp_path / "a" / "b")), DifferentDirectory)
    request = admin.BackupRequest(os.fsencode(tmp_path / "a" / "b"), *directory_identity(tmp_path))
    assert server.asked[0][2] == admin.write_backup_request(request)


@pytest.mark.parametrize(
    ("exists", "made", "said"),
    [
        (True, admin.BackupMade(elsewhere=True), "is another directory for the server, .*: nothing was done"),
        (True, admin.BackupMade(1, 2), "the server has made a backup at its .*/b, which is another directory here"),
        (False, admin.BackupMade(1, 2), "made a backup at its .*/b, which cannot be seen here: No"),
        (
            False,
            admin.BackupMade(),
            "made a backup at its .*/b, which cannot be seen here: No",
        ),
    ],
)
def test_a_backup_in_a_directory_that_the_client_does_not_see_is_an_error(server, tmp_path, exists, made, said):
    if exists:
        (tmp_path / "b").mkdir()
    server.made = made
    found = outcome(Admin(server).backup(tmp_path / "b"))
    assert isinstance(found, DifferentDirectory)
    assert re.search(said, str(found))
