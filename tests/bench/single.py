"""Connections to Queueber that do one thing at a time, or wait."""

from time import perf_counter

from load import Load
from peers.queueber import LEASE, Frames, own_call, results_of
from peers.queueber import wire as messages

from queueber.api import (
    ADD,
    POLL,
    REMOVE,
    AddRequest,
    NewItem,
    PollRequest,
    RemoveRequest,
    read_poll_response,
    read_remove_response,
    write_add_request,
    write_poll_request,
    write_remove_request,
)
from queueber.units import SpanMs

WAITING_MAX = 500
"""Polls that wait on one connection."""


def plain(port, pid, **more):
    """A load that is only a place to look things up."""
    usual = {"peer": "fsync", "port": port, "pid": pid, "kind": "add", "connections": 1, "window": 1, "items": 1}
    return Load(**{**usual, **more})


class Single(Frames):
    """One call, its answer, and then the next."""

    def __init__(self, port, pid):
        super().__init__(port, "add", plain(port, pid))
        self.item = write_add_request(AddRequest([NewItem(self.load.contents, SpanMs(0))]))
        self.one = write_poll_request(PollRequest(lease=LEASE, num_items=1, wait=None, no_wait=True))

    def timed(self, method, content):
        """The results of a call, and the seconds that it took."""
        request = own_call(0, self.target, method, content)
        began = perf_counter()
        self.socket.sendall(request)
        data = self.received()
        while len(data) < 8 or len(data) < 8 + 8 * int.from_bytes(data[4:8], "little"):
            data += self.received()
        seconds = perf_counter() - began
        self.socket.sendall(messages.finish(0, release_result_caps=False))
        return results_of(data), seconds

    def around(self):
        """Add an item, take the first there is, remove it: the seconds of each."""
        _, adding = self.timed(ADD, self.item)
        results, polling = self.timed(POLL, self.one)
        response = read_poll_response(results)
        (item,) = response.items
        remove = write_remove_request(RemoveRequest(bytes(item.id), bytes(response.lease)))
        results, removing = self.timed(REMOVE, remove)
        assert read_remove_response(results)
        return adding, polling, removing


class Waiting(Frames):
    """Polls that wait for as long as it takes, and again."""

    def __init__(self, port, pid, polls):
        super().__init__(port, "add", plain(port, pid, window=polls))
        poll = write_poll_request(PollRequest(lease=LEASE, num_items=1, wait=None, no_wait=False))
        self.calls = [own_call(slot, self.target, POLL, poll) for slot in range(polls)]
        self.socket.sendall(b"".join(self.calls))

    def again(self):
        """Read the answer that has come, and ask again in its place."""
        data = self.received()
        while len(data) < 8 or len(data) < 8 + 8 * int.from_bytes(data[4:8], "little"):
            data += self.received()
        results_of(data)
        # The answer's number stands where it stands in every Return.
        slot = int.from_bytes(data[32:36], "little")
        self.socket.sendall(messages.finish(slot, release_result_caps=False) + self.calls[slot])
