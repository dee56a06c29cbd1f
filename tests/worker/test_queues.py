"""The argument `queue` of a worker."""

import pytest

from queueber import aio, sync
from queueber.client_core.routes import DeadLettersOf
from queueber.errors import InvalidRequest
from queueber.worker.queues import resolve


def source(queue, names=None, *, strict=False):
    found = resolve(queue, names, strict=strict).source
    return found.place, dict(found.several), found.strict


def test_one_url():
    assert source("queueber://h/mail") == ("mail", {}, False)
    assert source("queueber://h") == (None, {}, False)
    assert resolve("queueber://h:9091/mail", None, strict=False).server == ("h", 9091)
    assert resolve("queueber+unix:///run/q?queue=mail", None, strict=False).server is None


def test_several_urls_in_order_or_with_weights():
    urls = ["queueber://h/a", "queueber://h/b", "queueber://h"]
    assert source(urls) == (None, {"a": 1, "b": 1, "default": 1}, False)
    assert source(urls, strict=True) == (None, {"a": 1, "b": 1, "default": 1}, True)
    assert source({urls[0]: 3, urls[1]: 1}) == (None, {"a": 3, "b": 1}, False)


def test_names_on_the_server_of_a_url():
    assert source("queueber://h/x", ["a", "b"]) == (None, {"a": 1, "b": 1}, False)
    assert source("queueber://h", {"a": 2, "b": 1}) == (None, {"a": 2, "b": 1}, False)
    assert source("queueber://h", ["a"]) == ("a", {}, False)


def test_the_names_are_for_people():
    assert str(resolve("queueber://h", None, strict=False).source) == "default"
    assert str(resolve(["queueber://h/a", "queueber://h/b"], None, strict=False).source) == "a, b"


def test_queues_of_any_client():
    with sync.connect("queueber://h:9091/mail?timeout_ms=5000") as blocking:
        found = resolve(blocking.queue(), None, strict=False)
        assert (found.source.place, found.server, found.target.options.timeout_ms) == ("mail", ("h", 9091), 5_000)
        assert source([blocking.queue("a"), blocking.default]) == (None, {"a": 1, "default": 1}, False)
        assert source(blocking.queue().dead_letters()) == (DeadLettersOf("mail"), {}, False)
        with pytest.raises(InvalidRequest, match="dead items cannot be polled together"):
            resolve([blocking.queue("a"), blocking.queue().dead_letters()], None, strict=False)
    assert source(aio.connect("queueber://h/mail").queue("a")) == ("a", {}, False)


@pytest.mark.parametrize(
    ("queue", "names", "strict", "text"),
    [
        (5, None, False, "queue is 5; it must be a queueber:// URL or a Queue"),
        ([], None, False, "queue is empty"),
        (["queueber://h/a", 5], None, False, "queue is 5"),
        (["queueber://h/a", "queueber://g/a"], None, False, "on several servers"),
        (["queueber://h/a", "queueber://h/a"], None, False, "queues has 'a' twice"),
        ({"queueber://h/a": 0, "queueber://h/b": 1}, None, False, r"queues\['a'\] is 0; it must be a weight"),
        ({"queueber://h/a": "1", "queueber://h/b": 1}, None, False, "must be a weight of 1 to 1,000"),
        ("queueber://h", "ab", False, "queues is 'ab'; it must be names"),
        ("queueber://h", [], False, "queues is 0 queues; it must be 1 to 64"),
        ("queueber://h", [""], False, "the queue's name is empty"),
        ("queueber://h/a", None, True, "strict is True; it needs several queues"),
        ("queueber://h/a?lease=5", None, False, "lease"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(queue, names, strict, text):
    with pytest.raises(InvalidRequest, match=text):
        resolve(queue, names, strict=strict)
