"""The rows that plain calls write: those of format 1, and no others."""

import pytest

from queueber import api
from queueber.store import Encoding
from queueber.store.rows.records import encode_writes


@pytest.fixture
def written(server):
    """Return a function that settles the server, and returns the tables of the rows that its commits wrote."""
    rows: list[str] = []
    commit = server.store.commit

    def record(writes, mark):
        for key, value in encode_writes(writes, mark, Encoding.UNPACKED):
            rows.append(("put " if value is not None else "delete ") + key[:1].decode())
        commit(writes, mark)

    server.store.commit = record

    def take() -> list[str]:
        server.settle()
        found = [row for row in rows if row != "put m"]
        rows.clear()
        return found

    return take


def test_plain_calls_write_the_rows_of_format_1(server, written):
    peer = server.connect()
    peer.add(b"a", b"b", b"c")
    assert written() == ["put i", "put i", "put i", "put q"]
    poll = peer.poll(2)
    assert written() == ["put l", "put q"]
    batch = api.read_poll_response(peer.receive()[poll])
    first, second = [item.id for item in batch.items]
    peer.remove(first, batch.lease)
    assert written() == ["delete i", "put q"]
    peer.extend(batch.lease, 5_000)
    assert written() == ["put l", "put q"]
    peer.remove(second, batch.lease)
    assert written() == ["delete i", "delete l", "put q"]


def test_a_delayed_and_a_redelivered_item_have_a_place(server, written):
    peer = server.connect()
    peer.add(b"a", delay=1_000)
    assert written() == ["put i", "put w", "put q"]
    peer.add(b"b")
    written()
    peer.poll(1, lease=10)
    assert written() == ["put l", "put q"]
    server.reactor.advance(0.1)
    server.sweeper.sweep()
    assert sorted(written()) == ["delete i", "delete l", "put i", "put q", "put w"]


def test_keys_cost_a_record_and_its_entry(server, written):
    peer = server.connect()
    item = api.NewItem(b"a", 0, api.ItemOptions(dedup_key=b"key"))
    peer.call(api.ADD, api.write_add_request(api.AddRequest([item])))
    assert written() == ["put i", "put d", "put e", "put q"]
    peer.call(api.ADD, api.write_add_request(api.AddRequest([item])))
    assert written() == []
    peer.call(api.ADD, api.write_add_request(api.AddRequest([api.NewItem(b"b", 0)], b"R" * 16)))
    assert written() == ["put i", "put a", "put e", "put q"]
