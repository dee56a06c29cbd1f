"""``python -m queueber.cli``, and the console script ``queueber``."""

from queueber.cli.bench import bench
from queueber.cli.care import backup, recover, restore, verify
from queueber.cli.commands import queueber
from queueber.cli.config import config
from queueber.cli.door import check, stats
from queueber.cli.health import health
from queueber.cli.inspecting import inspect
from queueber.cli.manhole import manhole
from queueber.cli.simulate import simulate
from queueber.cli.streams import run
from queueber.cli.stress import stress

for command in (
    config,
    health,
    backup,
    restore,
    verify,
    inspect,
    recover,
    stats,
    check,
    manhole,
    stress,
    simulate,
    bench,
):
    queueber.add_command(command)


def main() -> None:
    """Run the command that the arguments name; exits."""
    run(lambda: queueber.main(prog_name="queueber"))


if __name__ == "__main__":
    main()
