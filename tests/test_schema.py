"""The facts other people's programs were compiled against.  None of these figures may ever change; lists may grow."""

from pathlib import Path

import pytest

from queueber.capnp.schema import COMPILED, schema, schema_directory
from tests.capnp.compile_schema import compiled

# Struct: its id, then each field's offset in multiples of its own size.
PUBLIC = {
    "AddRequest": (0x957E89F15BF7073C, {"items": 0}),
    "AddResponse": (0x8F0C7C611B9D77FC, {"ids": 0}),
    "Item": (0x969042517EA666FD, {"contents": 0, "visibilityTimeoutSecs": 0, "visibilityTimeoutMs": 1}),
    "RemoveRequest": (0xABE78277A50C0777, {"id": 0, "lease": 1}),
    "RemoveResponse": (0xB0F8DD03217980F4, {"removed": 0}),
    "PollRequest": (
        0x909BA3F7E191287E,
        {
            "leaseValiditySecs": 0,
            "numItems": 2,
            "timeoutSecs": 2,
            "leaseValidityMs": 3,
            "timeoutMs": 4,
            "noWait": 96,
        },
    ),
    "PollResponse": (0xC9E9DC4BE8A4817F, {"items": 0, "lease": 1, "leaseDeadlineMs": 0}),
    "PolledItem": (0xE765A37E08E484D7, {"contents": 0, "id": 1, "attempt": 0, "addedAtMs": 1}),
    "ExtendRequest": (0xA13627B8A37C7937, {"lease": 0, "leaseValiditySecs": 0, "leaseValidityMs": 1}),
    "ExtendResponse": (0xDF3E61A8AEE054FC, {"extended": 0}),
    "Limits": (
        0xD980EF8BCAF146AB,
        {
            "frameBytes": 0,
            "itemsPerAdd": 1,
            "contentsBytes": 2,
            "addBytes": 3,
            "pollItems": 4,
            "pollBytes": 5,
            "leaseMs": 6,
            "delayMs": 7,
            "waitMs": 8,
        },
    ),
}
ADMIN = {
    "ServerStats": {
        "version": 0,
        "uptimeMs": 0,
        "queues": 1,
        "items": 2,
        "leases": 3,
        "leasedItems": 4,
        "waitingPolls": 5,
        "connections": 6,
        "windowBytes": 7,
        "pendingBytes": 8,
        "commits": 9,
        "freeBytes": 10,
        "reserveBytes": 11,
        "refusingAdds": 768,
        "limitHits": 1,
    },
    "LimitHits": {"limit": 0, "count": 0},
    "Finding": {"text": 0},
}
STORED = {
    "StoredItem": {"contents": 0, "addedAtMs": 0, "attempts": 2},
    "LeaseRecord": {"queue": 0, "deadlineMs": 1, "entries": 0},
    "QueueRecord": {"name": 0, "added": 0, "removed": 1, "floor": 1},
    "TimeMark": {"bootId": 0, "bootTimeMs": 0, "queueTimeMs": 1, "wallMs": 2},
    "SyncMark": {"sequence": 0, "failed": 64},
    "Format": {"version": 0, "durability": 0},
}


def test_what_runs_is_what_the_files_say():
    """If not, `make schema`."""
    assert Path(schema_directory(), COMPILED).read_text() == compiled()


def offsets(name):
    return {field.name: field.offset for field in schema().structs[name].fields}


def test_the_files_keep_their_ids():
    assert schema().file_ids["queueber.capnp"] == 0xBAB6E22DE0402699
    assert schema().file_ids["storage.capnp"] == 0xE9D2A7B1C4F05836
    assert schema().file_ids["admin.capnp"] == 0xE14BF91B4910BDD8


def test_the_queue_keeps_its_id_and_the_order_of_its_methods():
    queue = schema().interfaces["Queue"]
    assert queue.id == 0x8323A518D3254563
    assert queue.methods[:4] == ("add", "remove", "poll", "extend")
    assert queue.params[:4] == ("Queue.add$Params", "Queue.remove$Params", "Queue.poll$Params", "Queue.extend$Params")
    assert [offsets(name) for name in queue.params[:4]] == [{"req": 0}] * 4
    assert [offsets(name) for name in queue.results[:4]] == [{"resp": 0}] * 4


def test_the_broker_keeps_its_id_and_its_methods():
    broker = schema().interfaces["Broker"]
    assert broker.id == 0xF1252DE150E1D17E
    assert broker.methods[:2] == ("queue", "limits")
    assert [offsets(name) for name in broker.params[:2]] == [{"name": 0}, {}]
    assert [offsets(name) for name in broker.results[:2]] == [{"queue": 0}, {"limits": 0}]


def test_the_administrator_s_interface_keeps_its_id_and_its_methods():
    admin = schema().interfaces["Admin"]
    assert admin.id == 0xD81B0DD34E38C135
    assert admin.methods[:4] == ("stats", "check", "backup", "backupProgress")
    assert [offsets(name) for name in admin.params[:4]] == [
        {},
        {"force": 0},
        {"path": 0, "device": 0, "inode": 1},
        {},
    ]
    assert [offsets(name) for name in admin.results[:4]] == [
        {"stats": 0},
        {"findings": 0, "tookMs": 0},
        {"device": 0, "inode": 1, "elsewhere": 128},
        {"doneBytes": 0, "totalBytes": 1},
    ]


@pytest.mark.parametrize("name", ADMIN)
def test_the_administrator_s_fields_keep_their_places(name):
    assert offsets(name).items() >= ADMIN[name].items()


@pytest.mark.parametrize("name", PUBLIC)
def test_public_fields_keep_their_places(name):
    number, places = PUBLIC[name]
    assert offsets(name).items() >= places.items()
    assert schema().structs[name].id == number


@pytest.mark.parametrize("name", STORED)
def test_stored_fields_keep_their_places(name):
    assert offsets(name).items() >= STORED[name].items()


def test_defaults_that_are_not_zero_are_known():
    """They are XORed into the encoding; forgetting one would turn its meaning around."""
    found = {
        f"{struct.name}.{field.name}": field.default
        for struct in schema().structs.values()
        for field in struct.fields
        if field.default
    }
    assert found == {
        "Return.releaseParamCaps": 1,
        "Finish.releaseResultCaps": 1,
        "Finish.requireEarlyCancellationWorkaround": 1,
        "CapDescriptor.attachedFd": 255,
        "QueueWeight.weight": 1,
        "Settings.backoffBaseMs": 1_000,
        "Settings.backoffCapMs": 3_600_000,
        "Settings.dedupWindowMs": 300_000,
    }


def test_the_schema_is_found_in_a_checkout_and_in_an_installed_package(tmp_path):
    package = tmp_path / "queueber"
    package.mkdir()
    assert schema_directory(str(package)) == str(tmp_path / "schema")
    (package / "schema").mkdir()
    assert schema_directory(str(package)) == str(package / "schema")
    assert Path(schema_directory(), "queueber.capnp").is_file()
