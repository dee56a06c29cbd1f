"""Adds with request ids and deduplication keys, over a whole server."""

from queueber import api
from queueber.errors import StorageError
from queueber.server.core.lookups import LOOKUPS_MAX
from queueber.values import ItemOptions, NewItem

REQUEST = b"R" * 16


def add(peer, *keys, request_id=b"", contents=b"x"):
    items = [NewItem(contents, 0, ItemOptions(dedup_key=key) if key else None) for key in keys]
    return peer.call(api.ADD, api.write_add_request(api.AddRequest(items, request_id)))


def reply(peer, question):
    return api.read_add_response(peer.receive()[question])


def test_an_add_with_keys_is_answered_once_its_records_were_read_and_it_is_durable(server):
    peer = server.connect()
    question = add(peer, b"a", b"", b"a")
    assert question not in peer.receive()
    server.settle()
    found = reply(peer, question)
    assert (found.ids[0], list(found.duplicates)) == (found.ids[2], [2])
    again = add(peer, b"a", request_id=REQUEST)
    server.settle()
    other = server.connect()
    once_more = add(other, b"b", request_id=REQUEST)
    server.settle()
    assert reply(peer, again).ids == [found.ids[0]]
    assert (reply(other, once_more).ids, list(reply(other, once_more).duplicates)) == ([found.ids[0]], [0])
    assert server.broker.queue("default").items == 2
    assert (peer.request_bytes, server.committer.pending_bytes, server.handlers.outstanding) == (0, 0, 0)


def test_calls_that_arrive_during_a_read_are_read_together(server):
    peer = server.connect()
    questions = [add(peer, b"a") for _ in range(5)]
    assert len([job for job in server.pool.jobs if job[1].__name__ == "read_records"]) == 1
    assert peer.request_bytes >= 5 * 256
    assert server.committer.pending_bytes >= 5 * 256
    server.settle()
    found = [reply(peer, question) for question in questions]
    assert {each.ids[0] for each in found} == {found[0].ids[0]}
    assert [list(each.duplicates) for each in found] == [[], [0], [0], [0], [0]]


def test_an_add_with_a_new_request_id_waits_for_no_read(server):
    """The read of a record that cannot exist would cost it the way through a storage thread."""
    server.cleanup.run()  # finds no records
    server.settle()
    peer, jobs = server.connect(), []
    run = server.pool.run
    server.pool.run = lambda function, *arguments: jobs.append(function.__name__) or run(function, *arguments)
    question = add(peer, b"", request_id=REQUEST)
    with_headers = peer.call(
        api.ADD, api.write_add_request(api.AddRequest([NewItem(b"x", 0, ItemOptions(headers=(("n", b"v"),)))]))
    )
    server.settle()
    assert "read_records" not in jobs
    assert reply(peer, with_headers).ids
    again = add(peer, b"", request_id=REQUEST)
    server.settle()
    assert jobs.count("read_records") == 1
    assert reply(peer, again).ids == reply(peer, question).ids


def test_few_items_of_keys_that_count_until_these_are_gone_are_read_at_once(server, monkeypatch):
    """Each may have contents of 8 MiB."""
    peer, sizes, find = server.connect(), [], server.store.find
    monkeypatch.setattr(server.store, "find", lambda queues, ids: sizes.append(len(ids)) or find(queues, ids))
    count = 2 * LOOKUPS_MAX + 1
    options = [ItemOptions(dedup_key=b"%d" % number, until_removed=True) for number in range(count)]
    content = api.write_add_request(api.AddRequest([NewItem(b"x", 0, each) for each in options]))
    for duplicates in ([], list(range(count))):
        question = peer.call(api.ADD, content)
        server.settle()
        assert list(reply(peer, question).duplicates) == duplicates
    assert sizes == [LOOKUPS_MAX, LOOKUPS_MAX, 1]


def test_an_add_with_keys_serves_polls_that_wait_no_longer_before_it(server):
    peer = server.connect()
    add(peer, b"a")
    poll = peer.poll(no_wait=True)
    server.settle()
    assert poll in peer.receive()


def test_an_add_with_keys_is_refused_for_what_its_connection_holds(make_server):
    server = make_server(request_bytes=4_096)
    peer = server.connect()
    first, second = add(peer, b"a", contents=bytes(3_000)), add(peer, b"b", contents=bytes(3_000))
    server.settle()
    assert reply(peer, first).ids
    assert "(request_bytes)" in peer.receive()[second].reason


def test_a_refusal_names_its_limit(server):
    queue = server.broker.queue("default")
    server.committer.submit(server.broker.lifecycle.configure(queue, {"maxItems": 1}), lambda _: None)
    server.settle()
    peer = server.connect()
    question = add(peer, b"a", b"b")
    server.settle()
    assert "maxItems" in peer.receive()[question].reason
    assert peer.request_bytes == 0


def test_records_that_cannot_be_read_refuse_the_add(server, log_lines):
    def fail(*_, **__):
        raise StorageError("a block is damaged")

    read, server.store.dedup = server.store.dedup, fail
    peer = server.connect()
    first = add(peer, b"a")
    server.settle()
    assert reply(peer, first).ids, "a queue without a number has no records"
    questions = [add(peer, b"a"), add(peer, b"b")]
    server.settle()
    for question in questions:
        assert "the server's log says why" in peer.receive()[question].reason
    (line,) = log_lines("deduplication records of queue")
    assert (line["queue"], line["why"]) == ("default", "a block is damaged")
    assert (peer.request_bytes, server.committer.pending_bytes, server.handlers.outstanding) == (0, 0, 0)
    server.store.dedup = read
    again = add(peer, b"a")
    server.settle()
    assert list(reply(peer, again).duplicates) == [0]


def test_records_are_deleted_when_they_have_ended(server, log_lines):
    peer = server.connect()
    add(peer, b"a", b"b", request_id=REQUEST)
    server.settle()

    def run():
        server.cleanup.run()
        server.settle()

    run()
    assert server.cleanup.ended_records == 0
    server.reactor.advance(301)
    run()
    assert server.cleanup.ended_records == 2
    ended, server.store.ended = server.store.ended, None

    def fail(*_, **__):
        raise StorageError("a block is damaged")

    server.reactor.advance(300)
    server.store.ended = fail
    run()
    run()
    assert len(log_lines("Reading deduplication records")) == 1
    server.store.ended = ended
    run()
    assert server.cleanup.ended_records == 3
    server.store.ended = None
    run()
    assert server.deaths == []
