"""
The former module of `queueber.plyvel`.

Every use of a name gives a `DeprecationWarning`; `queueber.store` gives one for the import itself.
"""

from typing import Any
from warnings import warn

from queueber import plyvel

__all__ = plyvel.__all__


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in plyvel.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn("queueber.store.plyvel is now queueber.plyvel", DeprecationWarning, stacklevel=2)
    return getattr(plyvel, name)
