"""Queueber: a durable work-queue server."""

__version__ = "0.1.0"
