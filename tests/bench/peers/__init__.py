"""The servers that are measured next to each other, by name."""

from peers import beanstalkd, queueber, redis

PEERS = {
    peer.name: peer()
    for peer in (
        queueber.Queueber,
        queueber.System,
        queueber.Nothing,
        queueber.Pycapnp,
        beanstalkd.Beanstalkd,
        beanstalkd.Lazy,
        redis.Redis,
        redis.Lazy,
    )
}
OURS = ("fsync", "os", "none")
