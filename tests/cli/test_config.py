"""``queueber config``: what is in force, from where, and as a file that means the same."""

import pytest
from click.testing import CliRunner

from queueber.cli.config import config
from queueber.server.options import Options


@pytest.fixture
def shown():
    """What the command prints."""

    def shown(*arguments, environment=None):
        result = CliRunner(env=environment).invoke(config, arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    return shown


def test_each_option_is_shown_with_where_it_came_from(shown):
    said = [line.split("#") for line in shown("--workers=3", environment={"QUEUEBER_DURABILITY": "os"}).splitlines()]
    origins = {line[0].strip(): line[1].strip() for line in said if len(line) == 2}
    assert origins["workers = 3"] == "command line"
    assert origins['durability = "os"'] == "environment QUEUEBER_DURABILITY"
    assert origins['frame-bytes = "16 MiB"'] == "default"


def test_what_is_printed_is_a_file_that_means_the_same(shown, tmp_path):
    arguments = ("--workers=3", "--limit-idle-ms=90s", "--listen=127.0.0.1:1", "--listen=unix:/q", '--data-dir=a"b\\c')
    (tmp_path / "q.toml").write_text(shown(*arguments))
    direct, again = Options(environment={}), Options(environment={})
    direct.parseOptions(arguments)
    again.parseOptions([f"--config={tmp_path}/q.toml"])
    assert again.settings == direct.settings


def test_only_what_was_changed(shown):
    assert shown("--changed").strip() == ""
    assert shown("--changed", "--limit-segments=9").split() == ["[limit]", "segments", "=", "9", "#", "command", "line"]


def test_a_default_that_another_option_replaces_is_shown_as_such(shown, tmp_path):
    words = ("--listen-tls=127.0.0.1:9443", "--tls-certificate=c")
    said = shown(*words)
    assert "\nlisten = []" in f"\n{said}"
    assert "# default: listen-tls is given\n" in said
    for changed in ([], ["--changed"]):
        (tmp_path / "q.toml").write_text(shown(*changed, *words))
        again = Options(environment={})
        again.parseOptions([f"--config={tmp_path}/q.toml"])
        assert again.settings.listen == ()


def test_wrong_options_end_as_they_do_for_a_server():
    result = CliRunner().invoke(config, ["--workers=0"])
    assert result.exit_code == 64
    assert "--workers" in result.stderr


def test_variables_that_are_no_options_are_told():
    result = CliRunner(env={"QUEUEBER_WROKERS": "3"}).invoke(config, [])
    assert "QUEUEBER_WROKERS in the environment is no option" in result.stderr
