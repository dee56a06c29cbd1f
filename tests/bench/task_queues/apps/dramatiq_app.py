"""Dramatiq, with its default middleware."""

import os
import sys

import dramatiq
from record import adding, started

if os.environ["BENCH_BROKER"].startswith("redis"):
    from dramatiq.brokers.redis import RedisBroker

    dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_BROKER"]))
else:
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    dramatiq.set_broker(RabbitmqBroker(url=os.environ["BENCH_BROKER"], confirm_delivery=True))


@dramatiq.actor
def run(number, added, payload, pause):
    started(number, added, pause)


if __name__ == "__main__":
    adding(sys.argv[1:], run.send)
