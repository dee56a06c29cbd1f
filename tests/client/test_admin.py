"""Administrative calls, and the check that a backup is visible to the client."""

import os
import re

import pytest

from queueber.api import admin
from queueber.client_core.errors import DifferentDirectory
from queueber.process import directory_identity


def outcome(network, client, target, made):
    """Return the outcome of a backup to *target*, and its request; the server answers with *made*."""
    found = []
    client.admin.backup(target).addBoth(found.append)
    network.turn()
    (call,) = network.peer.calls()
    assert (call.interface_id, call.method_id) == (admin.ADMIN_INTERFACE_ID, admin.BACKUP)
    network.peer.answer([admin.write_backup_response(made)], call)
    network.turn()
    return getattr(found[0], "value", found[0]), admin.read_backup_request(call.params)


def test_a_backup_is_there_when_it_is_in_sight(network, client, tmp_path):
    target = tmp_path / "a" / "b"
    target.mkdir(parents=True)
    for made in (admin.BackupMade(*directory_identity(target)), admin.BackupMade()):
        found, request = outcome(network, client, target, made)
        assert found is None
        assert request == admin.BackupRequest(os.fsencode(target), *directory_identity(target))


def test_a_backup_sends_the_identity_of_the_nearest_directory(network, client, tmp_path):
    found, request = outcome(network, client, tmp_path / "a" / "b", admin.BackupMade(elsewhere=True))
    assert isinstance(found, DifferentDirectory)
    assert request == admin.BackupRequest(os.fsencode(tmp_path / "a" / "b"), *directory_identity(tmp_path))


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
def test_a_backup_in_a_directory_that_is_not_in_sight_is_an_error(network, client, tmp_path, exists, made, said):
    if exists:
        (tmp_path / "b").mkdir()
    found, _ = outcome(network, client, tmp_path / "b", made)
    assert isinstance(found, DifferentDirectory)
    assert re.search(said, str(found))
