"""The facts that a poll's reply has of its items."""

from queueber import api
from queueber.broker import Item, Key
from queueber.broker.model import Facts
from queueber.server.core.delivery_facts import delivery_facts


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
