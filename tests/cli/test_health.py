"""``queueber health``: what it asks, and how it ends."""

from queueber.cli.commands import queueber
from queueber.cli.health import health
from queueber.errors import Overloaded

queueber.add_command(health)


def test_it_asks_for_what_changes_nothing(shell):
    shell.default.answers["extend"] = False
    result = shell("--addr=somewhere:1", "health", "--timeout=2.5")
    assert (result.exit_code, shell.calls) == (0, [("extend", bytes(16), 1)])
    assert (shell.addresses, shell.seconds) == (["somewhere:1"], [2.5])
    assert result.stdout.startswith("serving: answered in ")


def test_a_server_that_answers_with_an_error_is_not_well(shell):
    shell.default.answers["extend"] = Overloaded("the storage engine has to catch up")
    result = shell("health")
    assert (result.exit_code, result.stderr) == (1, "queueber: the storage engine has to catch up\n")


def test_it_gives_some_time(shell):
    result = shell("health", "--timeout=0")
    assert (result.exit_code, shell.calls) == (1, [])
    assert "0 is no time for an answer" in result.stderr


def test_a_directory_that_no_server_holds(shell, tmp_path):
    result = shell("health", f"--data-dir={tmp_path}")
    assert (result.exit_code, shell.calls) == (1, [])
    assert result.stderr.startswith(f"queueber: no server runs on {tmp_path}")
