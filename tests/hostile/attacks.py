"""All live attacks: importing a module of them enters them into the list."""

from tests.hostile import clients, faults, floods, overload, streams
from tests.hostile.attack import ATTACKS

__all__ = ["ATTACKS", "clients", "faults", "floods", "overload", "streams"]
