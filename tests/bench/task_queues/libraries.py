"""
The libraries that are measured, each with the brokers its users have.

As a program, prints the name of each environment with the packages to install.
"""

import sys
from pathlib import Path

from attrs import frozen

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
APPS = HERE / "apps"
ENVIRONMENTS = ROOT / ".bench-tasks"


@frozen
class Library:
    """One library with one broker."""

    name: str
    packages: str
    """Requirements of pip, separated by spaces; none for Queueber itself."""

    app: str
    brokers: tuple[str, ...]
    worker: tuple[str, ...]
    """The command of a worker with all its processes; `{processes}` is their number."""

    forks: bool = False
    """One command runs one process: it is started as often as there are processes."""

    prepare: tuple[str, ...] = ()
    """A command that makes what the broker needs."""

    add: tuple[str, ...] = ()
    """More arguments of the program that adds tasks."""

    @property
    def folder(self):
        return ENVIRONMENTS / self.app

    @property
    def python(self):
        return Path(sys.executable) if not self.packages else self.folder / "bin" / "python"

    def command(self, words, **values):
        """Return *words*, filled with *values*, as a command of the library's environment."""
        program, *rest = (each.format(**values) for each in words)
        return [str(self.python.parent / program), *rest]


REDIS = ("redis-as-it-comes", "redis-always")
LIBRARIES = (
    Library(
        "celery",
        "celery[redis]",
        "celery",
        (*REDIS, "rabbitmq"),
        ("celery", "-A", "celery_app", "worker", "--concurrency", "{processes}", "--loglevel", "ERROR"),
    ),
    Library(
        "dramatiq",
        "dramatiq[redis,rabbitmq]",
        "dramatiq",
        (*REDIS, "rabbitmq"),
        ("dramatiq", "dramatiq_app", "--processes", "{processes}"),
    ),
    Library("arq", "arq", "arq", REDIS, ("arq", "arq_app.WorkerSettings"), forks=True),
    Library(
        "taskiq",
        "taskiq taskiq-redis",
        "taskiq",
        REDIS,
        ("taskiq", "worker", "taskiq_app:broker", "--workers", "{processes}", "--log-level", "ERROR"),
    ),
    Library("rq", "rq", "rq", REDIS, ("rq", "worker", "--quiet", "--url", "{broker}"), forks=True),
    Library(
        "procrastinate",
        "procrastinate psycopg[binary]",
        "procrastinate",
        ("postgres",),
        ("procrastinate", "--app", "procrastinate_app.app", "worker", "--concurrency", "10"),
        forks=True,
        prepare=("procrastinate", "--app", "procrastinate_app.app", "schema", "--apply"),
    ),
    Library(
        "queueber tasks",
        "",
        "queueber",
        ("fsync",),
        ("queueber", "work", "queueber_app:app", "--processes", "{processes}"),
    ),
    Library(
        "queueber worker",
        "",
        "queueber",
        ("fsync",),
        (
            "queueber",
            "work",
            "queueber_app:handle",
            "--queue",
            "default",
            "--url",
            "{broker}",
            "--processes",
            "{processes}",
        ),
        add=("handler",),
    ),
)

URLS = {
    "redis-as-it-comes": "redis://127.0.0.1:{port}/0",
    "redis-always": "redis://127.0.0.1:{port}/0",
    "rabbitmq": "amqp://guest:guest@127.0.0.1:{port}/",
    "postgres": "postgresql://postgres@127.0.0.1:{port}/postgres",
    "fsync": "queueber://127.0.0.1:{port}",
}

if __name__ == "__main__":
    for library in LIBRARIES:
        if library.packages:
            print(library.app, library.packages)
