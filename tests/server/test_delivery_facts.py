"""The facts that a poll's reply has of its items, and the room that they take."""

from hypothesis import given
from hypothesis import strategies as st

from queueber import api
from queueber.broker import Item, Key
from queueber.broker.model import Facts, full_size, full_sizes
from queueber.broker.window import Meter, Window
from queueber.server.core.views import delivery_facts


def polled(server, peer, count=10):
    poll = peer.poll(count)
    server.settle()
    response = api.read_poll_response(peer.receive().pop(poll))
    peer.connection.finish(poll)
    peer.send()
    return response


def test_an_item_that_was_lost_comes_with_its_losses_and_others_with_none(server):
    peer = server.connect()
    peer.add(b"lost")
    server.settle()
    for losses in range(3):
        response = polled(server, peer)
        assert [facts.losses for facts in response.facts] == ([losses] if losses else [])
        server.reactor.advance(2)
        server.sweeper.sweep()
        server.settle()
    peer.add(b"new")
    response = polled(server, peer)
    assert [(item.contents, item.attempt) for item in response.items] == [(b"lost", 4), (b"new", 1)]
    assert [(facts.failures, facts.losses) for facts in response.facts] == [(0, 3), (0, 0)]


def test_a_reply_with_new_items_only_has_the_bytes_of_the_original_schema(server):
    peer = server.connect()
    peer.add(b"one", b"two")
    server.settle()
    response = polled(server, peer)
    assert response.facts == ()
    assert len(response.items) == 2


def test_losses_are_the_attempts_that_did_not_fail():
    death = api.Death(api.DeathReason.ATTEMPTS, 9, "mail")
    facts = Facts(failures=2, first_leased_at=5, last_error="no", headers=(("n", b"v"),), death=death)
    item = Item(Key(1, bytes(16)), b"x", 1, 3, facts)
    assert delivery_facts(item) == api.DeliveryFacts(2, 1, 5, "no", (("n", b"v"),), death)
    assert delivery_facts(item._replace(facts=None)) == api.DeliveryFacts(0, 3)


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
headers = st.lists(st.tuples(texts, st.binary(max_size=40)), max_size=5).map(tuple)
deaths = st.builds(api.Death, st.sampled_from(api.DeathReason), st.integers(0, 99), texts)
facts = st.builds(
    Facts,
    failures=st.integers(0, 9),
    first_leased_at=st.integers(0, 99),
    last_error=texts,
    headers=headers,
    death=st.none() | deaths,
)


@given(st.lists(st.none() | facts, min_size=1, max_size=5))
def test_facts_take_no_more_room_in_a_reply_than_they_count(found):
    items = [Item(Key(1, bytes(16)), b"", 1, 1, each) for each in found]
    polled_items = [api.PolledItem(b"", bytes(16), 2, 1)] * len(items)
    plain = api.PollResponse(polled_items, bytes(16), 9)
    full = plain._replace(facts=tuple(map(delivery_facts, items)))
    without, with_facts = api.write_poll_responses([plain, full])
    # Every item counts 64 bytes beyond its size, of which it takes 48.
    assert len(with_facts) - len(without) <= sum(full_sizes(items)) + 40 * len(items) + 24


def test_facts_count_in_the_memory_of_a_window():
    meter = Meter(10)
    window = Window(Key(9, bytes(16)), meter)
    items = [Item(Key(1, bytes([place]) * 16), b"abc", 1, 0, Facts(last_error="x" * 1_000)) for place in range(1, 4)]
    window.append(items[:2], sum(full_sizes(items[:2])))
    window.put(items[2])
    assert window.bytes == meter.bytes == 3 * (10 + full_size(items[0])) > 3_000
    window.check()
    assert window.pop_due(2, 5, full_size(items[0]) + 1) == items[:2]
    window.put_back(items[:2])
    window.discard(items[0].key)
    window.check()
    window.clear()
    assert meter.bytes == 0


def test_headers_fill_a_reply_as_contents_do(make_server):
    """Else a reply of a thousand items would be longer than any message may be."""
    server = make_server(poll_bytes=20_000, contents_bytes=20_000)
    peer = server.connect()
    options = api.ItemOptions(headers=(("n", bytes(4_000)),))
    items = [api.NewItem(b"x", 0, options)] * 10
    peer.call(api.ADD, api.write_add_request(api.AddRequest(items)))
    server.settle()
    assert [len(polled(server, peer).items) for _ in range(3)] == [4, 4, 2]
