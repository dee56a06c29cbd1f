"""Imports all live attacks: each module enters its attacks into the list."""

from tests.hostile import clients, faults, floods, overload, streams, workers
from tests.hostile.attack import ATTACKS

__all__ = ["ATTACKS", "clients", "faults", "floods", "overload", "streams", "workers"]
