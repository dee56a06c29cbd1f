"""The examples of docs/worker.md do what the page says."""

import re
from pathlib import Path

from queueber.sync import connect
from queueber.testing import TestServer
from queueber.worker import Worker
from tests.support.waiting import until
from tests.worker.conftest import Running

PAGE = Path(__file__).parents[2] / "docs" / "worker.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


def run(example, url, names):
    exec(compile(example.replace("queueber://127.0.0.1:9090", url), str(PAGE), "exec"), names)


def test_the_examples(capfd):
    first, decisions, several, traced = EXAMPLES
    with TestServer(tcp=True) as server:
        names = {"__name__": "resize"}
        for each in (first, decisions, several, traced):
            run(each, server.url(), names)
        server.assert_added("pictures", contents=b"cat.jpg", count=1)
        worker = names["worker"]
        done = Worker(server.url("pictures"), names["resize"], telemetry=False)
        with connect(server.url()) as client:
            work_until(done, lambda: not server.items("pictures"))
            client.queue("decide").add(b"a.txt", b"b.jpg")
        decide = Worker(server.url("decide"), names["decide"], telemetry=False)
        work_until(decide, lambda: server.dead("decide") and not any(each.lease for each in server.items("decide")))
        assert server.dead("decide")[0].last_error == "a.txt is not a picture"
        assert worker.health.why == names["by_weight"].health.why == names["in_order"].health.why == "not started"
    assert "resizing cat.jpg" in capfd.readouterr().out


def work_until(worker, condition):
    """Run *worker* in a thread until *condition*, and stop it."""
    running = Running(worker)
    try:
        until(condition)
    finally:
        worker.stop()
        running.ended()
