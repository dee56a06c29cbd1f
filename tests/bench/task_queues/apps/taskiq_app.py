"""Taskiq over a Redis stream, the broker of its Redis package that acknowledges."""

import asyncio
import os
import sys
import time

from record import PAYLOAD, started
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(url=os.environ["BENCH_BROKER"], consumer_id="0")


@broker.task(task_name="run")
async def run(number: int, added: int, payload: str, pause: float) -> None:
    started(number, added)
    if pause:
        await asyncio.sleep(pause)


async def add(count, interval, pause):
    await broker.startup()
    for number in range(count):
        await run.kiq(number, time.monotonic_ns(), PAYLOAD, pause)
        if interval:
            await asyncio.sleep(interval)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(add(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
