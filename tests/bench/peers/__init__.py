"""The servers that are measured next to each other, by name."""

from peers import beanstalkd, echo, nats, postgres, queueber, rabbitmq, redis

PEERS = {
    peer.name: peer()
    for peer in (
        queueber.Queueber,
        queueber.System,
        queueber.Nothing,
        queueber.Baseline,
        queueber.Pycapnp,
        echo.Echo,
        beanstalkd.Beanstalkd,
        beanstalkd.Lazy,
        redis.Redis,
        redis.Lazy,
        rabbitmq.RabbitMQ,
        nats.Nats,
        postgres.Postgres,
    )
}
OURS = ("fsync", "os", "none")
