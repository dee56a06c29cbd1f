"""Uses of `queueber.tasks` in strict mode: a task keeps its parameters in all that it offers."""

from datetime import date, timedelta
from uuid import UUID

from queueber.tasks import Added, Next, Tasks

app = Tasks("queueber://127.0.0.1:9090/mail")


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task(queue="mail", max_attempts=5, priority="high", backoff=10)
async def remind(user: UUID, on: date | None = None) -> str:
    return f"{user} {on}"


@app.task(cron="*/5 * * * *", tz="Europe/Berlin")
def tidy() -> Next:
    return Next(add, 2, 3)


def blocking(user: UUID) -> int:
    found: Added = add.add(2, 3)
    add.options(delay=60, key="a").add(2, y=3)
    remind.options(delay=timedelta(minutes=1)).add(user, on=date(2026, 1, 1))
    add.add(2, "3")  # error: arg-type, reportArgumentType
    add.add(2)  # error: call-arg, reportCallIssue
    add.add(2, 3, z=4)  # error: call-arg, reportCallIssue
    add.options(delay=60).add("2", 3)  # error: arg-type, reportArgumentType
    add.options(dely=60)  # error: call-arg, reportCallIssue
    Next(add, 2)  # error: call-arg, reportCallIssue
    Next(add, 2, "3")  # error: arg-type, reportArgumentType
    add("2", 3)  # error: arg-type, reportArgumentType
    many: list[Added] = app.add_many([add.call(2, 3), add.options(key="a").call(4, y=5), remind.call(user)])
    add.call(2)  # error: call-arg, reportCallIssue
    add.options(delay=60).call(2, "3")  # error: arg-type, reportArgumentType
    app.add_many([(2, 3)])  # error: list-item, reportArgumentType
    app.add_many(add)  # error: arg-type, reportArgumentType
    print(found.id, found.duplicate, many[0].id)
    return add(2, 3)


async def waiting(user: UUID) -> str:
    found: Added = await remind.aio.add(user)
    await remind.aio.add(5)  # error: arg-type, reportArgumentType
    await add.options(key="a").aio.add(2)  # error: call-arg, reportCallIssue
    await add.tx.add(2, 3)
    await add.tx.add(2)  # error: call-arg, reportCallIssue
    many: list[Added] = await app.aio.add_many(add.call(number, 5) for number in range(3))
    many += await app.tx.add_many([add.call(1, 2)])
    print(found, many)
    return await remind(user, date(2026, 1, 1))


app.task(priority=5)  # error: call-overload, reportArgumentType
