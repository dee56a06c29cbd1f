"""Procrastinate: jobs are rows of PostgreSQL."""

import asyncio
import os
import sys
import time

import procrastinate
from record import PAYLOAD, started

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=os.environ["BENCH_BROKER"]), import_paths=["procrastinate_app"]
)


@app.task(name="run")
async def run(number, added, payload, pause):
    started(number, added)
    if pause:
        await asyncio.sleep(pause)


async def add(count, interval, pause):
    async with app.open_async():
        for number in range(count):
            await run.defer_async(number=number, added=time.monotonic_ns(), payload=PAYLOAD, pause=pause)
            if interval:
                await asyncio.sleep(interval)


if __name__ == "__main__":
    asyncio.run(add(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
