"""Attacks by clients that come, go and race."""

import select
import time

from queueber import api
from tests.hostile.attack import attack, turns
from tests.support.peer import TIMEOUT_SECONDS, Peer, polling


@attack("K7")
def reconnecting_and_resetting(arena):
    took = []
    for number in turns(arena):
        began = time.perf_counter()
        peer = Peer(arena.port)
        peer.bootstrap()
        took.append(time.perf_counter() - began)
        peer.reset() if number % 2 else peer.close()
    took.sort()
    rate = len(took) / sum(took)
    slowest = took[len(took) * 99 // 100] * 1e3
    return f"{rate:,.0f} connections a second one after the other, served within {slowest:.0f} ms (p99)"


@attack("K1 K2 K3 R17")
def workers_that_die(arena):
    """Workers die while they wait, right after a delivery, and long after it."""
    keeper = arena.connect()
    queue = keeper.queue("mortal")
    items = 0
    for number in turns(arena):
        waiting = Peer(arena.port)
        waiting.ask(api.POLL, polling(1, lease=300, wait=None), waiting.queue("mortal"))
        waiting.flush()
        if number % 2:
            waiting.reset()
        keeper.add(b"left over", target=queue)
        if not number % 2:
            waiting.reset()
        held = Peer(arena.port)
        held.poll(1, target=held.queue("mortal"), lease=300, wait=1)
        held.reset()
        items += 1
    count = items
    while items:
        # An item whose reply was on its way when its worker died comes back with the end of its lease.
        found = keeper.poll(100, target=queue, wait=5_000)
        assert found.items, f"{items} items did not come back"
        for item in found.items:
            assert keeper.remove(item.id, found.lease, target=queue)
            items -= 1
    return f"{2 * count:,} workers died, all {count:,} items came back"


@attack("K9")
def fifty_workers_race_for_one_item(arena):
    targets = {}
    for _ in range(50):
        peer = arena.connect()
        targets[peer] = peer.queue("race")
    peers = list(targets)
    for peer in peers:
        peer.ask(api.POLL, polling(1, wait=None), targets[peer])
        peer.flush()
    keeper = arena.connect()
    queue, count = keeper.queue("race"), 0
    for _ in turns(arena):
        keeper.add(b"%d" % count, target=queue)
        ready = select.select([peer.socket for peer in peers], [], [], TIMEOUT_SECONDS)[0]
        assert len(ready) == 1, "one item, and not one holder"
        (peer,) = [peer for peer in peers if peer.socket in ready]
        while not peer.outcomes:
            peer.listen()
        ((question, outcome),) = peer.outcomes.items()
        found = api.read_poll_response(outcome)
        assert [bytes(item.contents) for item in found.items] == [b"%d" % count]
        assert keeper.remove(found.items[0].id, found.lease, target=queue)
        del peer.outcomes[question]
        peer.connection.finish(question)
        peer.ask(api.POLL, polling(1, wait=None), targets[peer])
        peer.flush()
        count += 1
    return f"{count:,} items, one holder each"
