"""``python -m queueber.cli``, and the console script ``queueber``."""

from queueber.cli.commands import queueber
from queueber.cli.streams import run

queueber.modules = {
    "config": "queueber.cli.config",
    "health": "queueber.cli.control_commands",
    "backup": "queueber.cli.maintenance",
    "restore": "queueber.cli.maintenance",
    "verify": "queueber.cli.maintenance",
    "recover": "queueber.cli.maintenance",
    "inspect": "queueber.cli.inspect",
    "stats": "queueber.cli.control_commands",
    "check": "queueber.cli.control_commands",
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
