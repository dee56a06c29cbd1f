"""The thread of a client, while other threads use it."""

from queueber.client_core.broker_calls import BrokerCalls
from queueber.client_core.errors import NotConnected
from queueber.client_core.url import target_of
from queueber.sync.connector import Connector
from queueber.sync.pending import Pending, Result


class Interleaved(Pending):
    """A call at whose inspection by the thread another thread makes one more."""

    def __init__(self, call, waiting):
        self.waiting = waiting
        super().__init__(call, None)

    @property
    def background(self):
        self.waiting.add(Result())
        return False

    @background.setter
    def background(self, value):
        pass


def test_calls_of_other_threads_during_a_close_do_not_end_the_thread(url):
    call = BrokerCalls(list).limits()
    connector = Connector(target_of(url))
    connector.call(call)
    waiting = connector.io().waiting
    pending = Interleaved(call, waiting)
    waiting.add(pending)
    connector.close()
    assert isinstance(pending.error, NotConnected)
