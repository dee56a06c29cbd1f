"""``queueber health``: its call, its output and its exit status."""

from pathlib import Path

from queueber.client import Tls
from queueber.errors import Overloaded


def test_a_health_check_extends_no_lease(shell):
    shell.default.answers["extend"] = False
    result = shell("--addr=somewhere:1", "health", "--timeout=2.5")
    assert (result.exit_code, shell.calls) == (0, [("extend", bytes(16), 1)])
    assert (shell.addresses, shell.seconds) == (["somewhere:1"], [2.5])
    assert result.stdout.startswith("serving: answered in ")


def test_a_server_that_answers_with_an_error_is_unhealthy(shell):
    shell.default.answers["extend"] = Overloaded("the storage engine has to catch up")
    result = shell("health")
    assert (result.exit_code, result.stderr) == (1, "queueber: the storage engine has to catch up\n")


def test_a_health_check_needs_a_time_limit(shell):
    result = shell("health", "--timeout=0")
    assert (result.exit_code, shell.calls) == (1, [])
    assert "0 is too short for an answer" in result.stderr


def test_a_directory_without_a_server_is_unhealthy(shell, tmp_path):
    result = shell("health", f"--data-dir={tmp_path}")
    assert (result.exit_code, shell.calls) == (1, [])
    assert result.stderr.startswith(f"queueber: no server runs on {tmp_path}")


def test_tls_options_do_not_apply_to_the_control_socket(shell, tmp_path, monkeypatch):
    """A script or the environment may set them for all commands; the control socket has no TLS."""
    monkeypatch.setattr(Path, "is_socket", lambda path: True)
    shell.default.answers["extend"] = False
    for where in ([], [f"--data-dir={tmp_path}"]):
        assert shell("--addr=somewhere:1", "--tls-ca=ca.pem", "health", *where).exit_code == 0
    assert shell.addresses == ["somewhere:1", f"unix:path={tmp_path}/control.sock"]
    assert shell.tls == [Tls(ca=Path("ca.pem")), None]
