"""Supported helpers for the tests of programs that use Queueber, and for Queueber's own tests."""

from queueber.testing.server import InProcessServer, StepPool

__all__ = ["InProcessServer", "StepPool"]
