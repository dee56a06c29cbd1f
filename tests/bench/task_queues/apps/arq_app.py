"""arq: a worker runs its jobs in one event loop."""

import asyncio
import os
import sys

from arq import create_pool
from arq.connections import RedisSettings
from record import PAYLOAD, started

SETTINGS = RedisSettings.from_dsn(os.environ["BENCH_BROKER"])


async def run(context, number, added, payload, pause):
    started(number, added)
    if pause:
        await asyncio.sleep(pause)


class WorkerSettings:
    """Read by `arq`."""

    functions = (run,)
    redis_settings = SETTINGS
    keep_result = 0


async def add(count, interval, pause):
    pool = await create_pool(SETTINGS)
    for number in range(count):
        await pool.enqueue_job("run", number, __import__("time").monotonic_ns(), PAYLOAD, pause)
        if interval:
            await asyncio.sleep(interval)
    await pool.aclose()


if __name__ == "__main__":
    asyncio.run(add(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
