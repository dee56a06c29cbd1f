"""The parts of a server that the connections of one port share."""

from collections.abc import Mapping

from attrs import frozen

from queueber import rpc
from queueber.broker import Broker, Peer
from queueber.limits import Limits
from queueber.server.core.committer import Committer
from queueber.server.core.dispatcher import Dispatcher
from queueber.server.core.handlers import Handlers
from queueber.server.core.stats import CallStats
from queueber.server.net.connections import Connections
from queueber.server.net.read_scheduler import ReadScheduler
from queueber.server.net.send_buffer import FlushQueue


@frozen(eq=False, kw_only=True)
class ServerContext:
    """The parts of the server that the connections of one port share."""

    broker: Broker
    handlers: Handlers
    request_bytes: Mapping[Peer, int]
    """Bytes of calls that wait for a commit, of each connection that has such calls."""

    call_stats: CallStats
    """The counters of calls; each reply is subtracted from the calls that are not answered."""

    dispatcher: Dispatcher
    committer: Committer
    flush_queue: FlushQueue
    connections: Connections
    limits: Limits
    read_scheduler: ReadScheduler
    templates: rpc.TemplateReaders
