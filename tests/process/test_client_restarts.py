"""The Twisted client over restarts and kills of a real server."""

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from queueber.client import connect, new_item

pytestmark = pytest.mark.slow

HELD = 20


@pytest_twisted.ensureDeferred
async def test_session_leases_and_waiting_polls_survive_kills_and_restarts(start, tmp_path):
    path = tmp_path / "q.sock"

    def begin():
        return start("--listen", f"unix:{path}")

    server = await deferToThread(begin)
    url = f"queueber+unix://{path}?queue=mail&resend_adds=true"
    lost = []
    async with connect(reactor, url, retry_policy=lambda _: 0.05) as client:
        queue = client.queue()
        await queue.add(*[b"held"] * HELD)
        async with client.session(on_lost=lost.append) as session:
            batches = [await queue.poll(session=session) for _ in range(HELD)]
            waiting = client.queue("other").poll(session=session)
            for end in ("kill", "stop", "kill"):
                adding = [queue.add_items(new_item(b"more")) for _ in range(5)]
                await deferToThread(getattr(server, end))
                server = await deferToThread(begin)
                for each in adding:
                    await each
            assert [await batch.items[0].remove() for batch in batches] == [True] * HELD
            await client.queue("other").add(b"last")
            async with await waiting as item:
                assert item.contents == b"last"
        assert lost == []
        found = await queue.poll(100)
        assert [item.contents for item in found] == [b"more"] * 15
