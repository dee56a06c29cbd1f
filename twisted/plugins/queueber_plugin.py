"""The `queueber` subcommand of twistd and twist.  Names only: imports nothing of ours."""

from twisted.application.service import ServiceMaker

queueber = ServiceMaker(
    "Queueber",
    "queueber.server.app.entry",
    "A durable work-queue server.",
    "queueber",
)
