"""Options from the command line, the environment and a file: their precedence, and the report of mistakes."""

import pytest
from attrs import fields, frozen

from queueber.server.config.settings import OPTION_TABLES, OPTIONS, Settings, option_field, options_of
from queueber.server.config.sources import ConfigError
from queueber.server.config.spec import Option, boolean, integer
from queueber.server.config.twisted_options import Options


@pytest.fixture
def parse(tmp_path):
    """Return the options of a command line, an environment and a file's text."""

    def parse(*arguments, environment=None, file=None):
        if file is not None:
            path = tmp_path / "queueber.toml"
            path.write_text(file)
            arguments = (*arguments, f"--config={path}")
        options = Options(environment=environment or {})
        options.parseOptions(arguments)
        return options

    return parse


@pytest.fixture
def complaints(parse, capsys, tmp_path):
    """Return the exit status and the complaints for invalid options."""

    def complaints(*arguments, **sources):
        with pytest.raises(SystemExit) as ended:
            parse(*arguments, **sources)
        said = capsys.readouterr().err.replace(f"{tmp_path}/", "").splitlines()
        assert all(line.startswith("queueber: ") for line in said)
        return ended.value.code, [line.removeprefix("queueber: ") for line in said]

    return complaints


def test_the_command_line_beats_the_environment_beats_the_file_beats_the_default(parse):
    file = "workers = 3\ndurability = 'os'\ncoalesce-max-batch-size = 5\n"
    environment = {"QUEUEBER_WORKERS": "4", "QUEUEBER_DURABILITY": "none"}
    options = parse("--workers=6", environment=environment, file=file)
    settings = options.settings
    assert (settings.workers, settings.durability, settings.claim.polls, settings.claim.items) == (6, "none", 5, 512)
    origins = {
        name: str(options.effective[name].origin) for name in ("workers", "durability", "coalesce-max-batch-items")
    }
    assert origins == {
        "workers": "command line",
        "durability": "environment QUEUEBER_DURABILITY",
        "coalesce-max-batch-items": "default",
    }
    assert options.effective["coalesce-max-batch-size"].origin.text.endswith("queueber.toml")


def test_a_pipe_is_not_read_again(parse, tmp_path):
    """Reading ``--config <(...)`` again would block the reactor, because the pipe has no writer."""
    options = parse(file="workers = 3\n")
    path = tmp_path / "queueber.toml"
    assert options.reload().changed == {}
    path.unlink()
    path.symlink_to("/dev/null")  # not a regular file either, and a failing test does not block on it
    with pytest.raises(ConfigError, match=r"queueber\.toml is not a regular file, and cannot be read a second time"):
        options.reload()


def test_limits_have_a_table_of_their_own(parse):
    file = "[limit]\nframe-bytes = '32 MiB'\nsegments = 9\nidle-ms = '1h'\n"
    limits = parse(file=file).settings.limits
    assert (limits.frame_bytes, limits.segments, limits.idle_ms) == (32 << 20, 9, 3_600_000)


def test_addresses_to_listen_on_are_a_list(parse):
    file = "listen = ['127.0.0.1:1', 'unix:/run/q']\n"
    assert [each.text for each in parse(file=file).settings.listen] == ["127.0.0.1:1", "unix:/run/q"]
    environment = {"QUEUEBER_LISTEN": "127.0.0.1:2 [::1]:3"}
    assert [each.text for each in parse(environment=environment, file=file).settings.listen] == [
        "127.0.0.1:2",
        "[::1]:3",
    ]
    assert [each.text for each in parse("-l", ":4", "--insecure-plaintext", file=file).settings.listen] == [":4"]


def test_the_file_may_be_named_in_the_environment(parse, tmp_path):
    (tmp_path / "other.toml").write_text("workers = 7\ninsecure-plaintext = true\n")
    options = parse("--listen=:1", environment={"QUEUEBER_CONFIG": str(tmp_path / "other.toml")})
    assert options.settings.workers == 7


def test_all_mistakes_are_reported_together(complaints):
    file = """
workers = 0
wokers = 3
[limit]
segments = "many"
frame_bytes = 5

[storage]
x = 1
"""
    status, lines = complaints("--durability=never", environment={"QUEUEBER_LISTEN": "nowhere"}, file=file)
    assert status == 78
    no_place = "'nowhere' is neither an endpoint string nor HOST:PORT nor [v6]:PORT"
    assert lines == [
        "--durability is 'never'; it must be one of fsync, os, none",
        f"environment: QUEUEBER_LISTEN nowhere: {no_place}",
        "queueber.toml: wokers is not an option; did you mean workers?",
        "queueber.toml: [limit] frame_bytes is not an option; did you mean [limit] frame-bytes?",
        "queueber.toml: [storage] x is not an option",
        "queueber.toml: workers is '0'; it must be a whole number from 1 to 1,024",
        "queueber.toml: [limit] segments is 'many'; it must be a whole number from 1 to 65,536",
    ]


def test_mistakes_on_the_command_line_only_have_the_status_of_usage_errors(complaints):
    status, lines = complaints("--workers=0", "--durability=never")
    assert status == 64
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("workers = ", "queueber.toml: Invalid value (at line 1, column 11)"),
        ("workers = [1]", "queueber.toml: workers must be a text or a number, not list"),
        ("wipe = true", "queueber.toml: wipe is accepted on the command line only"),
        ("[limits]\nqueues = 1", "queueber.toml: [limits] queues is not an option; did you mean [limit] queues?"),
        ("config = 'x'", "queueber.toml: config names this file and is not an option of it"),
        ("segments = 4", "queueber.toml: segments is not an option"),
        ("frame-bytes = 4", "queueber.toml: frame-bytes is not an option; did you mean [limit] frame-bytes?"),
        (
            "insecure-plaintext = 'perhaps'",
            "queueber.toml: insecure-plaintext is 'perhaps'; it must be yes or no",
        ),
        ("data-dir = ''", "queueber.toml: data-dir is empty"),
        (
            "listen = ':1'",
            "queueber.toml: listen :1: plaintext beyond this machine needs insecure-plaintext",
        ),
        ("[limit]\nadd-bytes = 1", "queueber.toml: [limit] contents-bytes (8 MiB, the default) is larger than"),
    ],
)
def test_a_mistake_in_the_file_has_the_status_of_a_wrong_configuration(complaints, file, said):
    status, lines = complaints(file=file)
    assert status == 78
    assert lines[0].startswith(said)


def test_a_missing_file_is_reported(complaints, tmp_path):
    assert complaints(f"--config={tmp_path}/none.toml") == (78, ["none.toml: No such file or directory"])


def test_wipe_is_ignored_in_the_environment(parse):
    options = parse(environment={"QUEUEBER_WIPE": "yes", "QUEUEBER_PORT_9090_TCP": "tcp://10.0.0.1:9090"})
    assert not options.settings.wipe
    assert options.unknown_variables == {
        "QUEUEBER_PORT_9090_TCP": "",
        "QUEUEBER_WIPE": "; wipe is accepted on the command line only",
    }
    slip = parse(environment={"QUEUEBER_WORKRES": "3"}).unknown_variables
    assert slip == {"QUEUEBER_WORKRES": "; did you mean QUEUEBER_WORKERS?"}
    assert parse("--wipe").settings.wipe


def test_an_option_knows_its_name_in_each_source():
    option = Option(name="limit-idle-ms", kind=integer(0, 9), default=0, help="x", table="limit")
    assert (option.variable, option.key) == ("QUEUEBER_LIMIT_IDLE_MS", "idle-ms")


def test_names_and_variables_are_unique_and_documented_defaults_are_the_defaults():
    for each in (lambda option: option.name, lambda option: option.variable, lambda option: (option.table, option.key)):
        assert len({each(option) for option in OPTIONS}) == len(OPTIONS)
    for option in OPTIONS:
        if not option.default_help and not option.flag and option.default is not None:
            assert option.kind.parse(option.default_text) == option.default


@pytest.mark.parametrize("value", ["yes", "TRUE", "on", "1"])
def test_a_switch_is_on(value):
    assert boolean(value)


def test_all_conflicts_are_reported_together_with_their_sources(complaints):
    file = "tls-key = 'k'\nlisten = [':9000']\n\n[limit]\ncontents-bytes = '64 MiB'\n"
    status, said = complaints("--manhole-password-file=x", file=file)
    assert (status, said) == (
        78,
        [
            "--manhole-password-file needs --manhole",
            (
                "queueber.toml: [limit] contents-bytes (64 MiB) is larger than [limit] add-bytes (15 MiB, the"
                " default): no add could hold it"
            ),
            (
                "queueber.toml: [limit] contents-bytes (64 MiB) is larger than [limit] poll-bytes (15 MiB, the"
                " default): no poll could return it"
            ),
            "queueber.toml: tls-key needs tls-certificate",
            "queueber.toml: listen :9000: plaintext beyond this machine needs insecure-plaintext",
        ],
    )


def test_unknown_arguments_do_not_hide_other_mistakes(complaints):
    file = "durability = 'never'\nlisten = [':1', 'nowhere', 'elsewhere']\ntls-key = 'k'\n"
    words = ("--wokers", "3", "what", "--workers=0", "-q", "--drain-seconds=x")
    status, said = complaints(*words, file=file)
    assert status == 78
    no_place = "is neither an endpoint string nor HOST:PORT nor [v6]:PORT"
    assert said == [
        "--workers is '0'; it must be a whole number from 1 to 1,024",
        "--drain-seconds is 'x'; it must be a number from 0 to 3,600",
        "--wokers is not an option; did you mean --workers?",
        "unexpected argument 'what': everything is an option",
        "option -q not recognized",
        f"queueber.toml: listen nowhere: 'nowhere' {no_place}",
        f"queueber.toml: listen elsewhere: 'elsewhere' {no_place}",
        "queueber.toml: durability is 'never'; it must be one of fsync, os, none",
        "queueber.toml: tls-key needs tls-certificate",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--insecure-plaintext=yes"], "option --insecure-plaintext must not have an argument"),
        (["--log"], "option --log not a unique prefix"),
        (["-qd", "x"], "option -q not recognized"),
        (["--connections=5"], "--connections is not an option; did you mean --limit-connections?"),
        (["--nonsense", "5"], "--nonsense is not an option"),
        (["-"], "unexpected argument '-': everything is an option"),
        (["--", "-x"], "unexpected argument '-x': everything is an option"),
        (["--worker"], "option --workers requires argument"),
    ],
)
def test_each_error_of_getopt_is_reported_in_a_line(complaints, words, said):
    assert complaints(*words) == (64, [said])


def test_a_whole_number_may_have_separators(parse):
    assert (
        parse("--coalesce-max-batch-size=10,000", file="coalesce-max-batch-items = '1_000'").settings.claim.polls
        == 10_000
    )


def test_a_mistake_in_a_value_that_another_source_replaces_is_not_reported(parse):
    assert parse("--workers=5", environment={"QUEUEBER_WORKERS": "x"}, file="workers = [1]").settings.workers == 5


def test_abbreviated_joined_and_repeated_options_are_accepted(parse):
    options = parse("--worker", "5", "-dx", "-l", "127.0.0.1:1", "-l127.0.0.1:2", "--insecure-plaintext")
    assert (options.settings.workers, str(options.settings.data_dir)) == (5, "x")
    assert [each.text for each in options.settings.listen] == ["127.0.0.1:1", "127.0.0.1:2"]


def test_a_conflict_with_an_invalid_or_unread_option_is_not_reported(complaints):
    status, said = complaints("--tls-key=k", "--tls-certificate=")
    assert (status, said) == (64, ["--tls-certificate is empty"])
    assert complaints("--tls-key=k", file="tls-certificate =")[1] == [
        "queueber.toml: Invalid value (at line 1, column 18)"
    ]


def test_a_certificate_that_no_address_uses_is_refused(complaints):
    """The operator believes that clients use TLS."""
    assert complaints("--tls-certificate=c") == (
        64,
        ["--tls-certificate without --listen-tls: no address would use TLS"],
    )


@pytest.mark.parametrize(
    "source", [{"file": "listen = []"}, {"file": "listen = ''"}, {"environment": {"QUEUEBER_LISTEN": " "}}]
)
def test_there_must_be_an_address_to_listen_on(complaints, source):
    status, (line,) = complaints(**source)
    assert (status, line.partition(": ")[2]) == (78, "there is no address to listen on, neither with TLS nor without")
    assert complaints("--listen=") == (64, ["there is no address to listen on, neither with TLS nor without"])


TLS = ("--tls-certificate=c", "--listen-tls=127.0.0.1:9443")


@pytest.mark.parametrize(
    ("words", "sources", "places"),
    [
        ((), {}, ["127.0.0.1:9090"]),
        (TLS, {}, []),
        (("--tls-certificate=c",), {"environment": {"QUEUEBER_LISTEN_TLS": "127.0.0.1:9443"}}, []),
        (("--tls-certificate=c",), {"file": "listen-tls = 'systemd:domain=INET:name=queueber'"}, []),
        ((*TLS, "--listen=unix:/q"), {}, ["unix:/q"]),
        (TLS, {"file": "listen = ['unix:/q']"}, ["unix:/q"]),
        ((*TLS, "--listen", ""), {"file": "listen = ['unix:/q']"}, []),
        (TLS, {"file": "listen = ['unix:/q']", "environment": {"QUEUEBER_LISTEN": ""}}, []),
        (("--listen-tls", ""), {}, ["127.0.0.1:9090"]),
        ((), {"file": "listen-tls = []"}, ["127.0.0.1:9090"]),
    ],
)
def test_an_address_that_is_given_replaces_the_default(parse, words, sources, places):
    """A server for clients with certificates must not let in every other local user at a port of its own choice."""
    assert [each.text for each in parse(*words, **sources).settings.listen] == places


def test_an_empty_value_stands_alone_and_only_for_addresses(complaints):
    assert complaints("--listen=", "--listen=127.0.0.1:1") == (
        64,
        ["--listen is empty, which means none, and has other values too"],
    )
    # A variable that was not set must not let in every client of the authority.
    assert complaints(environment={"QUEUEBER_TLS_CLIENT_NAME": " "}) == (
        78,
        ["environment: QUEUEBER_TLS_CLIENT_NAME is empty"],
    )


def test_a_space_in_a_list_of_the_environment_has_a_backslash(parse):
    listen = parse(environment={"QUEUEBER_LISTEN": r"unix:/run/a\ b.sock  unix:/run/c\:d.sock"}).settings.listen
    assert [each.text for each in listen] == ["unix:/run/a b.sock", r"unix:/run/c\:d.sock"]


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ({"file": "workers = true"}, "queueber.toml: workers must be a text or a number, not true"),
        ({"environment": {"QUEUEBER_CONFIG": ""}}, "environment: QUEUEBER_CONFIG is empty"),
        (
            {"environment": {"QUEUEBER_DATA_DIR": "a\udcff"}},
            r"environment: QUEUEBER_DATA_DIR is 'a\udcff', which is not UTF-8",
        ),
        (
            {"environment": {"QUEUEBER_LIMIT_CONNECTIONS": "1.5"}},
            "environment: QUEUEBER_LIMIT_CONNECTIONS is '1.5'; it must be a whole number from 1 to 1,000,000",
        ),
    ],
)
def test_values_that_are_refused(complaints, sources, said):
    assert complaints(**sources) == (78, [said])


def test_conflicting_limits_are_spelled_as_they_were_given(complaints):
    """Their values are shown, and a default is spelled like the option it conflicts with."""
    environment = {"QUEUEBER_LIMIT_FRAME_BYTES": "300 MiB"}
    bound = "a message of that size could not be received"
    assert complaints(environment=environment) == (
        78,
        [
            (
                "environment: QUEUEBER_LIMIT_FRAME_BYTES (300 MiB) is larger than QUEUEBER_LIMIT_BUFFERED_BYTES"
                f" (256 MiB, the default): {bound}"
            )
        ],
    )
    assert complaints("--limit-buffered-bytes=260 MiB", environment=environment)[1] == [
        f"environment: QUEUEBER_LIMIT_FRAME_BYTES (300 MiB) is larger than --limit-buffered-bytes (260 MiB): {bound}"
    ]
    assert complaints(environment=environment, file="[limit]\nbuffered-bytes = '100 MiB'")[1] == [
        (
            "environment, queueber.toml: QUEUEBER_LIMIT_FRAME_BYTES (300 MiB) is larger than"
            f" [limit] buffered-bytes (100 MiB): {bound}"
        ),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-1", "--limit-idle-ms is '-1'; it must be a whole number from 0 ms to 1 y, plain or with one of "),
        ("1x", "--limit-idle-ms is '1x'; it must be a whole number from 0 ms to 1 y, plain or with one of "),
        (f"{'9' * 5_000}", "--limit-idle-ms is '999"),
        (f"{'9' * 400}.5", "--limit-idle-ms is '999"),
    ],
)
def test_an_invalid_quantity_is_reported_with_the_permitted_range(complaints, text, said):
    status, (line,) = complaints(f"--limit-idle-ms={text}")
    assert status == 64
    assert line.startswith(said)
    assert line.endswith("must be a whole number from 0 ms to 1 y, plain or with one of y, d, h, min, s, ms")


def test_the_values_in_the_help_are_accepted(parse):
    usage = " ".join(Options().getUsage(width=10_000).split())
    assert "[default: fsync]. May be: fsync, os or none" in usage
    assert "Fsync" not in usage
    settings = parse("--durability=FSYNC", "--log-level=Warn", "--storage-compression=LZ4").settings
    assert (settings.durability, settings.log_level, settings.tuning.compression) == ("fsync", "warn", "lz4")


def test_a_mistake_in_the_password_file_is_reported_under_its_own_option(complaints, tmp_path):
    (tmp_path / "password").write_text("user:too short")
    (tmp_path / "password").chmod(0o600)
    words = ["--manhole=127.0.0.1:9092", f"--manhole-password-file={tmp_path}/password"]
    assert complaints(*words) == (
        64,
        ["--manhole-password-file password: the password must have at least 12 bytes"],
    )
    file = f"manhole = '127.0.0.1:9092'\nmanhole-password-file = '{tmp_path}/none'\n"
    assert complaints(file=file) == (
        78,
        ["queueber.toml: manhole-password-file none: No such file or directory"],
    )
    assert complaints("--manhole=unix:/m", words[1])[1] == [
        "--manhole unix:/m needs no --manhole-password-file: only its owner can connect to a Unix socket"
    ]


def test_a_variable_without_its_table_is_reported_with_the_full_name(parse):
    assert parse(environment={"QUEUEBER_CONNECTIONS": "5"}).unknown_variables == {
        "QUEUEBER_CONNECTIONS": "; did you mean QUEUEBER_LIMIT_CONNECTIONS?"
    }


def test_an_invalid_character_is_reported_in_every_source(complaints):
    environment = {"QUEUEBER_LISTEN": "unix:a\udcff", "QUEUEBER_CONFIG": "a\udcff.toml"}
    assert complaints("--http=unix:\udcff", environment=environment) == (
        78,
        [
            r"--http is 'unix:\udcff', which is not UTF-8",
            r"environment: QUEUEBER_CONFIG is 'a\udcff.toml', which is not UTF-8",
            r"environment: QUEUEBER_LISTEN is 'unix:a\udcff', which is not UTF-8",
        ],
    )


def test_a_table_of_options_is_a_class_of_fields():
    @frozen
    class Sample:
        most_items: int = option_field(integer(1, 9), 3, "Most items of a sample")
        plain: int = 7

    (option,) = options_of(Sample, "sample")
    assert (option.name, option.in_file, option.attribute) == ("sample-most-items", "[sample] most-items", "most_items")
    assert (option.convert("4"), option.default, option.variable) == (4, 3, "QUEUEBER_SAMPLE_MOST_ITEMS")


@pytest.mark.parametrize("attribute", OPTION_TABLES)
def test_each_table_of_options_fills_one_attribute_of_the_settings(attribute):
    part, options = OPTION_TABLES[attribute]
    assert isinstance(getattr(Settings(), attribute), part)
    assert {option.attribute for option in options} <= {each.name for each in fields(part)}
    assert len({option.table for option in options}) == 1
