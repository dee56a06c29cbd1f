"""``queueber health``: what it asks, and how it ends."""

from pathlib import Path

from queueber.client import Tls
from queueber.errors import Overloaded


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
    assert "0 is too short for an answer" in result.stderr


def test_a_directory_that_no_server_holds(shell, tmp_path):
    result = shell("health", f"--data-dir={tmp_path}")
    assert (result.exit_code, shell.calls) == (1, [])
    assert result.stderr.startswith(f"queueber: no server runs on {tmp_path}")


def test_the_options_for_tls_are_for_the_network_and_not_for_the_control_socket(shell, tmp_path, monkeypatch):
    """They may stand in a script or in the environment for all commands; the socket of the machine speaks no TLS."""
    monkeypatch.setattr(Path, "is_socket", lambda path: True)
    shell.default.answers["extend"] = False
    for where in ([], [f"--data-dir={tmp_path}"]):
        assert shell("--addr=somewhere:1", "--tls-ca=ca.pem", "health", *where).exit_code == 0
    assert shell.addresses == ["somewhere:1", f"unix:path={tmp_path}/control.sock"]
    assert shell.tls == [Tls(ca=Path("ca.pem")), None]
