"""``python -m queueber.cli``, and the console script ``queueber``."""

from queueber.cli.commands import queueber


def main() -> None:
    """Run the command that the arguments name; exits."""
    queueber.main(prog_name="queueber")


if __name__ == "__main__":
    main()
