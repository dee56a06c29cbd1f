"""The module that twistd and twist look into for their subcommand `queueber`: signals and streams come first."""

from typing import Any

from queueber.server.app.early_signals import SIGNALS
from queueber.streams import fill_standard_streams


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """`Options` or `makeService`, whose imports take most of a second."""
    if name not in ("Options", "makeService"):
        raise AttributeError(name)
    fill_standard_streams()
    SIGNALS.begin()
    from queueber.server.app import plugin  # noqa: PLC0415

    return getattr(plugin, name)
