"""``python -m queueber.cli``, and the console script ``queueber``."""

from queueber.cli.commands import queueber
from queueber.cli.streams import run


def main() -> None:
    """Run the command in the arguments, and exit."""
    run(lambda: queueber.main(prog_name="queueber"))


if __name__ == "__main__":
    main()
