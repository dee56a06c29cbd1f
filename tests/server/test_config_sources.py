"""Options from the command line, the environment and a file: their precedence, and the report of mistakes."""

import pytest
from attrs import fields

from queueber.server.config.settings import CONFIG, OPTION_TABLES, OPTIONS, SERVICE_OPTIONS, Settings
from queueber.server.config.sources import ConfigError
from queueber.server.config.spec import boolean, integer
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
    names = ("workers", "durability", "coalesce-max-batch-items")
    origins = {option.name: options.effective.sources[option.name].origin(option) for option in OPTIONS}
    assert [origins[name] for name in names] == [
        "command line",
        "environment QUEUEBER_DURABILITY",
        "default",
    ]
    assert origins["coalesce-max-batch-size"].endswith("queueber.toml")


def test_the_last_value_counts_whatever_the_others_are(parse):
    assert parse("--workers=0", "--workers=3").settings.workers == 3


def test_a_change_is_reported_with_its_source(parse, tmp_path):
    options = parse(file="workers = 3\n")
    assert options.reload() == (options.settings, {})
    (tmp_path / "queueber.toml").write_text("workers = 3\ndrain-seconds = 1\n")
    settings, changed = options.reload()
    assert changed == {"drain-seconds": f"{tmp_path}/queueber.toml"}
    assert settings.drain_seconds == 1


def test_a_pipe_is_not_read_again(parse, tmp_path):
    """Reading ``--config <(...)`` again would block the reactor, because the pipe has no writer."""
    options = parse(file="workers = 3\n")
    path = tmp_path / "queueber.toml"
    path.unlink()
    path.symlink_to("/dev/null")  # not a regular file either, and a failing test does not block on it
    with pytest.raises(ConfigError, match=r"queueber\.toml is not a regular file, and cannot be read a second time"):
        options.reload()


LISTEN_FILE = {"file": "listen = ['127.0.0.1:1', 'unix:/run/q']\n"}


@pytest.mark.parametrize(
    ("words", "sources", "values"),
    [
        (
            (),
            {"file": "[limit]\nframe-bytes = '32 MiB'\nsegments = 9\nidle-ms = '1h'\n"},
            {"limit-frame-bytes": 32 << 20, "limit-segments": 9, "limit-idle-ms": 3_600_000},
        ),
        ((), LISTEN_FILE, {"listen": "127.0.0.1:1 unix:/run/q"}),
        (
            (),
            LISTEN_FILE | {"environment": {"QUEUEBER_LISTEN": "127.0.0.1:2 [::1]:3"}},
            {"listen": "127.0.0.1:2 [::1]:3"},
        ),
        (("-l", ":4", "--insecure-plaintext"), LISTEN_FILE, {"listen": ":4"}),
        (
            ("--coalesce-max-batch-size=10,000",),
            {"file": "coalesce-max-batch-items = '1_000'"},
            {"coalesce-max-batch-size": 10_000, "coalesce-max-batch-items": 1_000},
        ),
        # A mistake in a value that another source replaces is not reported.
        (("--workers=5",), {"environment": {"QUEUEBER_WORKERS": "x"}, "file": "workers = [1]"}, {"workers": 5}),
        (
            ("--worker", "5", "-dx", "-l", "127.0.0.1:1", "-l127.0.0.1:2", "--insecure-plaintext"),
            {},
            {"workers": 5, "data-dir": "x", "listen": "127.0.0.1:1 127.0.0.1:2", "insecure-plaintext": True},
        ),
        # A space that belongs to a value has a backslash.
        (
            (),
            {"environment": {"QUEUEBER_LISTEN": r"unix:/run/a\ b.sock  unix:/run/c\:d.sock"}},
            {"listen": r"unix:/run/a b.sock unix:/run/c\:d.sock"},
        ),
        (
            ("--durability=FSYNC", "--log-level=Warn", "--storage-compression=LZ4"),
            {},
            {"durability": "fsync", "log-level": "warn", "storage-compression": "lz4"},
        ),
        ((), {"file": "insecure-plaintext = true"}, {"insecure-plaintext": True}),
    ],
)
def test_values_that_are_accepted(parse, words, sources, values):
    effective = parse(*words, **sources).effective.values
    found = {name: effective[name] for name in values}
    if "listen" in found:
        found["listen"] = " ".join(each.text for each in found["listen"])
    assert found == values


def test_the_file_may_be_named_in_the_environment(parse, tmp_path):
    (tmp_path / "other.toml").write_text("workers = 7\ninsecure-plaintext = true\n")
    options = parse("--listen=:1", environment={"QUEUEBER_CONFIG": str(tmp_path / "other.toml")})
    assert options.settings.workers == 7


NO_ADDRESS = "is neither an endpoint string nor HOST:PORT nor [v6]:PORT"


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
    assert lines == [
        "--durability is 'never'; it must be one of fsync, os, none",
        f"environment: QUEUEBER_LISTEN nowhere: 'nowhere' {NO_ADDRESS}",
        "queueber.toml: wokers is not an option; did you mean workers?",
        "queueber.toml: [limit] frame_bytes is not an option; did you mean [limit] frame-bytes?",
        "queueber.toml: [storage] x is not an option",
        "queueber.toml: workers is '0'; it must be a whole number from 1 to 1,024",
        "queueber.toml: [limit] segments is 'many'; it must be a whole number from 1 to 65,536",
    ]


def test_unknown_arguments_do_not_hide_other_mistakes(complaints):
    file = "durability = 'never'\nlisten = [':1', 'nowhere', 'elsewhere']\ntls-key = 'k'\n"
    words = ("--wokers", "3", "what", "--workers=0", "-q", "--drain-seconds=x")
    status, said = complaints(*words, file=file)
    assert status == 78
    assert said == [
        "--workers is '0'; it must be a whole number from 1 to 1,024",
        "--drain-seconds is 'x'; it must be a number from 0 to 3,600",
        "--wokers is not an option; did you mean --workers?",
        "unexpected argument 'what': everything is an option",
        "option -q not recognized",
        f"queueber.toml: listen nowhere: 'nowhere' {NO_ADDRESS}",
        f"queueber.toml: listen elsewhere: 'elsewhere' {NO_ADDRESS}",
        "queueber.toml: durability is 'never'; it must be one of fsync, os, none",
        "queueber.toml: tls-key needs tls-certificate",
    ]


def test_all_conflicts_are_reported_together_with_their_sources(complaints):
    file = "tls-key = 'k'\nlisten = [':9000']\n\n[limit]\ncontents-bytes = '64 MiB'\n"
    contents = "queueber.toml: [limit] contents-bytes (64 MiB) is larger than"
    assert complaints("--manhole-password-file=x", file=file) == (
        78,
        [
            "--manhole-password-file needs --manhole",
            f"{contents} [limit] add-bytes (15 MiB, the default): no add could hold it",
            f"{contents} [limit] poll-bytes (15 MiB, the default): no poll could return it",
            "queueber.toml: tls-key needs tls-certificate",
            "queueber.toml: listen :9000: plaintext beyond this machine needs insecure-plaintext",
        ],
    )


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
        (["--listen="], "neither --listen nor --listen-tls has an address to listen on"),
        (["--http="], "--http is empty"),
        # The operator believes that clients use TLS.
        (["--tls-certificate=c"], "--tls-certificate needs --listen-tls: no address would use TLS"),
        # A conflict with an invalid option is not reported.
        (["--tls-key=k", "--tls-certificate="], "--tls-certificate is empty"),
    ],
)
def test_a_mistake_on_the_command_line_has_the_status_of_a_usage_error(complaints, words, said):
    assert complaints(*words) == (64, [said])


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("workers = ", "Invalid value (at line 1, column 11)"),
        ("workers = [1]", "workers is [1]; it must be a text or a number"),
        ("workers = true", "workers is 'true'; it must be a whole number from 1 to 1,024"),
        ("[limit]\nqueues = false", "[limit] queues is 'false'; it must be a whole number from 1 to 10,000,000"),
        ("wipe = true", "wipe cannot be set in a file"),
        ("[limits]\nqueues = 1", "[limits] queues is not an option; did you mean [limit] queues?"),
        ("config = 'x'", "config cannot be set in a file"),
        ("segments = 4", "segments is not an option; did you mean [limit] segments?"),
        ("frame-bytes = 4", "frame-bytes is not an option; did you mean [limit] frame-bytes?"),
        ("insecure-plaintext = 'perhaps'", "insecure-plaintext is 'perhaps'; it must be yes or no"),
        ("data-dir = ''", "data-dir is empty"),
        ("listen = ':1'", "listen :1: plaintext beyond this machine needs insecure-plaintext"),
        ("listen = []", "neither listen nor listen-tls has an address to listen on"),
        ("listen = ''", "neither listen nor listen-tls has an address to listen on"),
        ("[limit]\npoll-items = 0", "[limit] poll-items is '0'; it must be a whole number from 1 to 10,000"),
    ],
)
def test_a_mistake_in_the_file_has_the_status_of_a_wrong_configuration(complaints, file, said):
    assert complaints(file=file) == (78, [f"queueber.toml: {said}"])


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("LISTEN", " ", "neither QUEUEBER_LISTEN nor QUEUEBER_LISTEN_TLS has an address to listen on"),
        ("CONFIG", "", "QUEUEBER_CONFIG is empty"),
        # A variable that was not set must not let in every client of the authority.
        ("TLS_CLIENT_NAME", " ", "QUEUEBER_TLS_CLIENT_NAME is empty"),
        ("DATA_DIR", "a\udcff", r"QUEUEBER_DATA_DIR is 'a\udcff', which is not UTF-8"),
        (
            "LIMIT_CONNECTIONS",
            "1.5",
            "QUEUEBER_LIMIT_CONNECTIONS is '1.5'; it must be a whole number from 1 to 1,000,000",
        ),
    ],
)
def test_a_mistake_in_the_environment_has_the_status_of_a_wrong_configuration(complaints, variable, value, said):
    assert complaints(environment={f"QUEUEBER_{variable}": value}) == (78, [f"environment: {said}"])


def test_a_conflict_with_an_option_of_an_unread_file_is_not_reported(complaints, tmp_path):
    assert complaints("--tls-key=k", file="tls-certificate =") == (
        78,
        ["queueber.toml: Invalid value (at line 1, column 18)"],
    )
    missing = (78, ["none.toml: No such file or directory"])
    assert complaints("--tls-key=k", f"--config={tmp_path}/none.toml") == missing


def test_wipe_is_ignored_in_the_environment(parse):
    options = parse(environment={"QUEUEBER_WIPE": "yes", "QUEUEBER_PORT_9090_TCP": "tcp://10.0.0.1:9090"})
    assert not options.settings.wipe
    assert options.effective.unknown_variables == {
        "QUEUEBER_PORT_9090_TCP": "",
        "QUEUEBER_WIPE": "; wipe is accepted on the command line only",
    }
    assert parse("--wipe").settings.wipe


@pytest.mark.parametrize(("slip", "meant"), [("WORKRES", "WORKERS"), ("CONNECTIONS", "LIMIT_CONNECTIONS")])
def test_an_unknown_variable_is_reported_with_a_similar_one(parse, slip, meant):
    unknown = parse(environment={f"QUEUEBER_{slip}": "3"}).effective.unknown_variables
    assert unknown == {f"QUEUEBER_{slip}": f"; did you mean QUEUEBER_{meant}?"}


def test_an_option_knows_its_name_in_each_source():
    option = integer(0, 9)(attribute="idle_ms", default=0, help="x", table="limit")
    assert (option.name, option.variable, option.key) == ("limit-idle-ms", "QUEUEBER_LIMIT_IDLE_MS", "idle-ms")
    assert (option.in_file, option.convert("4")) == ("[limit] idle-ms", 4)


def test_names_and_variables_are_unique_and_documented_defaults_are_the_defaults():
    for each in (lambda option: option.name, lambda option: option.variable, lambda option: (option.table, option.key)):
        assert len({each(option) for option in OPTIONS}) == len(OPTIONS)
    for option in OPTIONS:
        if not option.default_help and not option.is_flag and option.default is not None:
            assert option.parse(option.default_text) == option.default


@pytest.mark.parametrize("value", ["yes", "TRUE", "on", "1"])
def test_a_switch_is_on(value):
    assert boolean(value)


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


def test_conflicting_limits_are_spelled_as_they_were_given(complaints):
    """Their values are shown, and a default is spelled like the option it conflicts with."""
    environment = {"QUEUEBER_LIMIT_FRAME_BYTES": "300 MiB"}
    frame, bound = "QUEUEBER_LIMIT_FRAME_BYTES (300 MiB) is larger than", "a message of that size could not be received"
    assert complaints(environment=environment) == (
        78,
        [f"environment: {frame} QUEUEBER_LIMIT_BUFFERED_BYTES (256 MiB, the default): {bound}"],
    )
    assert complaints("--limit-buffered-bytes=260 MiB", environment=environment)[1] == [
        f"environment: {frame} --limit-buffered-bytes (260 MiB): {bound}"
    ]
    assert complaints(environment=environment, file="[limit]\nbuffered-bytes = '100 MiB'")[1] == [
        f"environment, queueber.toml: {frame} [limit] buffered-bytes (100 MiB): {bound}",
    ]


@pytest.mark.parametrize("text", ["-1", "1x", "9" * 5_000, f"{'9' * 400}.5"])
def test_an_invalid_quantity_is_reported_with_the_permitted_range(complaints, text):
    permitted = "a whole number from 0 ms to 1 y, plain or with one of y, d, h, min, s, ms"
    assert complaints(f"--limit-idle-ms={text}") == (64, [f"--limit-idle-ms is '{text}'; it must be {permitted}"])


def test_the_help_shows_values_as_they_are_typed():
    usage = " ".join(Options().getUsage(width=10_000).split())
    assert "[default: fsync]. May be: fsync, os or none" in usage
    assert "Fsync" not in usage


def test_a_mistake_in_the_password_file_is_reported_under_its_own_option(complaints, tmp_path):
    (tmp_path / "password").write_text("user:too short")
    (tmp_path / "password").chmod(0o600)
    words = ["--manhole=127.0.0.1:9092", f"--manhole-password-file={tmp_path}/password"]
    assert complaints(*words) == (
        64,
        ["--manhole-password-file password: the password must have at least 12 bytes"],
    )
    file = f"manhole = '127.0.0.1:9092'\nmanhole-password-file = '{tmp_path}/--http none'\n"
    assert complaints(file=file) == (
        78,
        ["queueber.toml: manhole-password-file --http none: No such file or directory"],
    )
    assert complaints("--manhole=unix:/m", words[1])[1] == [
        "--manhole unix:/m needs no --manhole-password-file: only its owner can connect to a Unix socket"
    ]


def test_a_reload_does_not_need_the_password_file(parse, tmp_path):
    (tmp_path / "password").write_text("user:long enough for it")
    (tmp_path / "password").chmod(0o600)
    options = parse("--manhole=127.0.0.1:9092", f"--manhole-password-file={tmp_path}/password")
    (tmp_path / "password").unlink()
    assert options.reload()[1] == {}


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


def test_each_setting_is_an_option_or_a_table_of_options():
    options = {option.attribute for option in SERVICE_OPTIONS if option is not CONFIG}
    assert {each.name for each in fields(Settings)} == options | OPTION_TABLES.keys() | {"claim_bytes"}


@pytest.mark.parametrize("attribute", OPTION_TABLES)
def test_each_table_of_options_fills_one_attribute_of_the_settings(attribute):
    part, options = OPTION_TABLES[attribute]
    assert isinstance(getattr(Settings(), attribute), part)
    assert {option.attribute for option in options} <= {each.name for each in fields(part)}
    assert len({option.table for option in options}) == 1
