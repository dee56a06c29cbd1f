"""``queueber config`` prints the effective options and their sources, as an equivalent file."""

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from queueber.broker.settings import DEFINITIONS
from queueber.cli.config import as_file, config
from queueber.limits import PEER_LIMITS
from queueber.server.config.settings import OPTIONS
from queueber.server.config.sources import resolve
from queueber.server.config.twisted_options import Options
from queueber.store.tuning import TUNING_OPTIONS
from queueber.units import Unit


@pytest.fixture
def shown():
    """Return the output of the command."""

    def shown(*arguments, environment=None):
        result = CliRunner(env=environment).invoke(config, arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    return shown


def test_each_option_is_shown_with_its_source(shown):
    said = [line.split("#") for line in shown("--workers=3", environment={"QUEUEBER_DURABILITY": "os"}).splitlines()]
    origins = {line[0].strip(): line[1].strip() for line in said if len(line) == 2}
    assert origins["workers = 3"] == "command line"
    assert origins['durability = "os"'] == "environment QUEUEBER_DURABILITY"
    assert origins['frame-bytes = "16 MiB"'] == "default"


def test_the_output_is_an_equivalent_file(shown, tmp_path):
    arguments = ("--workers=3", "--limit-idle-ms=90s", "--listen=127.0.0.1:1", "--listen=unix:/q", '--data-dir=a"b\\c')
    (tmp_path / "q.toml").write_text(shown(*arguments))
    direct, again = Options(environment={}), Options(environment={})
    direct.parseOptions(arguments)
    again.parseOptions([f"--config={tmp_path}/q.toml"])
    assert again.settings == direct.settings


CHARACTERS = st.one_of(
    st.sampled_from("\\\"'#~\x01\t\n\r\x1b\x7f\x80\x9b\u00fc\u2028\u202e\ufeff\U0001f980"), st.characters(codec="utf-8")
)
TEXTS = st.text(CHARACTERS.filter(lambda each: each != "\0"), min_size=1, max_size=9).map(lambda text: f"./{text}")
PLACES = st.one_of(
    st.from_regex(r"(127\.0\.0\.1|localhost|\[::1\])?:[1-9][0-9]{0,3}", fullmatch=True),
    TEXTS.map(lambda path: "unix:" + path.replace("\\", "\\\\").replace(":", "\\:").replace("=", "\\=")),
)
FIGURES = {
    "workers": st.integers(1, 1024),
    "lease-sweep-interval": st.floats(0.001, 60),
    "lease-restart-grace": st.floats(0, 3_600),
    "coalesce-max-batch-size": st.integers(1, 100_000),
    "coalesce-max-batch-items": st.integers(1, 1_000_000),
    "coalesce-batch-window-ms": st.integers(0, 10_000),
    "drain-seconds": st.floats(0, 3_600),
    "free-space-reserve": st.integers(0, 1 << 60),
    **{f"limit-{each.name.replace('_', '-')}": st.integers(each.low, each.high) for each in PEER_LIMITS},
    **{
        f"storage-{each.name.replace('_', '-')}": st.integers(each.low, each.high)
        for each in TUNING_OPTIONS
        if isinstance(each.unit, Unit)
    },
    **{
        f"queue-{name.replace('_', '-')}": st.integers(0, setting.high)
        for name, setting in DEFINITIONS.items()
        if setting.description and setting.high is not None
    },
}
WORDS = {
    "durability": ["fsync", "os", "NONE"],
    "log-format": ["auto", "text", "json"],
    "log-level": ["debug", "INFO", "warn", "error", "critical"],
    "storage-encoding": ["unpacked", "packed"],
    "storage-compression": ["none", "lz4", "Zstd:3"],
}


def values_of(option):
    """Return texts that the option accepts."""
    if option.name in FIGURES:
        return FIGURES[option.name].map(str)
    if option.name in WORDS:
        return st.sampled_from(WORDS[option.name])
    if option.name in ("listen", "listen-tls", "http"):
        return PLACES
    reads_texts = option.default is None or option.default == () or option.name == "data-dir"
    return TEXTS if reads_texts else st.sampled_from(["yes", "no"])


GIVEN = st.fixed_dictionaries(
    {},
    optional={
        option.name: st.lists(values_of(option), min_size=1, max_size=2 if option.many else 1)
        for option in OPTIONS
        if option.name != "config" and not option.command_line_only
    },
)


@settings(max_examples=25)
@given(arguments=GIVEN, changed=st.booleans())
def test_any_configuration_can_be_read_back(tmp_path_factory, arguments, changed):
    direct = resolve(arguments, {})
    assert direct.complaints == []
    path = tmp_path_factory.getbasetemp() / "a\nb\x7f.toml"
    path.write_bytes(as_file(direct, changed=changed).encode())
    again = resolve({"config": [str(path)]}, {})
    assert again.complaints == []
    for option in OPTIONS:
        if option.name != "config":
            assert again.values[option.name] == direct.values[option.name]


def test_the_output_is_utf_8_in_every_locale():
    result = CliRunner(charset="latin-1").invoke(config, ["--changed", "--data-dir=\u00fc\x7f"])
    assert result.stdout_bytes.startswith('data-dir = "\u00fc\\U0000007f"'.encode())


def test_changed_omits_defaults(shown):
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


def test_invalid_options_have_the_exit_status_of_a_server():
    result = CliRunner().invoke(config, ["--workers=0"])
    assert result.exit_code == 64
    assert "--workers" in result.stderr


def test_unknown_variables_are_reported():
    result = CliRunner(env={"QUEUEBER_WROKERS": "3"}).invoke(config, [])
    assert "QUEUEBER_WROKERS in the environment is not an option" in result.stderr
