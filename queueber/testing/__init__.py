"""Supported helpers for the tests of programs that use Queueber, and for our own."""

from queueber.testing.server import InProcessServer, StepPool

__all__ = ["InProcessServer", "StepPool"]
