"""``python -m queueber.cli``, and the console script ``queueber``."""

from queueber.cli.commands import queueber
from queueber.cli.config import config

queueber.add_command(config)


def main() -> None:
    """Run the command that the arguments name; exits."""
    queueber.main(prog_name="queueber")


if __name__ == "__main__":
    main()
