"""The example of a configuration: it is taken as it stands, and with everything in it that is commented out."""

import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from queueber.cli.config import config

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "deploy" / "queueber.toml"

COMMENTED = re.compile(r"^# (?=[a-z-]+ = )", re.MULTILINE)


def shown(text, folder):
    (folder / "queueber.toml").write_text(text)
    return CliRunner(env={"QUEUEBER_CONFIG": None}).invoke(
        config, ["--changed", f"--config={folder / 'queueber.toml'}"]
    )


def test_it_is_taken_as_it_stands(tmp_path):
    text = EXAMPLE.read_text()
    result = shown(text, tmp_path)
    assert result.exit_code == 0, result.output
    printed = tomllib.loads(result.stdout)
    wanted = tomllib.loads(text)
    assert printed.items() <= wanted.items()
    assert printed["listen"] == wanted["listen"]


@pytest.mark.parametrize("socket", [False, True])
def test_what_is_commented_out_is_taken_too(tmp_path, socket):
    text = COMMENTED.sub("", EXAMPLE.read_text())
    first, second = re.findall(r"^listen = .*\n", text, re.MULTILINE)
    text = text.replace(first if socket else second, "")
    result = shown(text, tmp_path)
    assert result.exit_code == 0, result.output
    assert tomllib.loads(result.stdout)["tls-client-name"]


def test_a_socket_of_systemd_s_is_shown_to_a_process_that_has_none(tmp_path):
    """Only the server itself is passed it; the command that shows the configuration is another process."""
    result = shown('listen = ["systemd:domain=UNIX:name=queueber"]\n', tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "systemd:domain=UNIX:name=queueber" in result.stdout
