"""The methods of `admin.capnp`, there and back."""

import pytest

from queueber.api import admin
from queueber.capnp.layout import layout
from queueber.capnp.reader import single_segment
from queueber.rpc.messages import Params, Results


def content(data):
    frame = single_segment(data)
    return Params(frame, 0, 0, frame.end)


def results(data):
    return Results(content(data), ())


def test_stats_there_and_back():
    stats = admin.ServerStats(
        version="1.2",
        uptime_ms=1,
        queues=2,
        items=3,
        leases=4,
        leased_items=5,
        waiting_polls=6,
        connections=7,
        window_bytes=8,
        pending_bytes=9,
        commits=10,
        free_bytes=11,
        reserve_bytes=12,
        refusing_adds=True,
        limit_hits={"connections": 3, "free_space_reserve": 1},
    )
    assert admin.read_stats_response(results(admin.write_stats_response(stats))) == stats


def test_empty_stats_are_zeros():
    nothing = layout("Admin.stats$Results").build()
    assert admin.read_stats_response(results(nothing)) == admin.ServerStats()


@pytest.mark.parametrize("force", [False, True])
def test_the_force_of_a_check_there_and_back(force):
    assert admin.read_check_request(content(admin.write_check_request(force=force))) is force


def test_a_check_without_the_field_is_not_forced():
    assert not admin.read_check_request(content(admin.write_no_params(admin.SERVER_STATS)))


def test_findings_there_and_back():
    checked = admin.Checked(["a", "ß"], 7)
    assert admin.read_check_response(results(admin.write_check_response(checked))) == checked


def test_a_path_and_progress_there_and_back():
    request = admin.BackupRequest(b"/tmp/\xff", device=3, inode=5)
    assert admin.read_backup_request(content(admin.write_backup_request(request))) == request
    assert admin.read_progress_response(results(admin.write_progress_response(3, 9))) == (3, 9)
    made = admin.BackupMade(device=3, inode=5, elsewhere=True)
    assert admin.read_backup_response(results(admin.write_backup_response(made))) == made
