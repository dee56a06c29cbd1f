"""``python -m queueber.cli``, and the console script ``queueber``."""

from queueber.cli.commands import queueber
from queueber.cli.streams import run

queueber.modules = {
    "config": "queueber.cli.config",
    "health": "queueber.cli.health",
    "backup": "queueber.cli.care",
    "restore": "queueber.cli.care",
    "verify": "queueber.cli.care",
    "recover": "queueber.cli.care",
    "inspect": "queueber.cli.inspecting",
    "stats": "queueber.cli.door",
    "check": "queueber.cli.door",
    "manhole": "queueber.cli.manhole",
    "stress": "queueber.cli.stress",
    "simulate": "queueber.cli.simulate",
    "bench": "queueber.cli.bench",
}


def main() -> None:
    """Run the command in the arguments, and exit."""
    run(lambda: queueber.main(prog_name="queueber"))


if __name__ == "__main__":
    main()
