"""The configuration file: what is accepted, and the report of each kind of mistake."""

import codecs
from pathlib import Path

import pytest
from click.testing import CliRunner

from queueber.cli.control_commands import stats
from queueber.cli.server_options import ServerSelection
from queueber.client_core.address import parse
from queueber.errors import InvalidRequest
from queueber.server.admin.console.access import parse_access
from queueber.server.config.sources import resolve


@pytest.fixture
def resolved(tmp_path):
    """Return the options of a file with these bytes or this text, before a check of conflicts."""

    def resolved(content):
        path = tmp_path / "q.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return resolve({"config": [str(path)]}, {})

    return resolved


@pytest.fixture
def read(resolved):
    """Return the values of such a file, by the options' names."""

    def read(content):
        found = resolved(content)
        assert found.complaints == []
        return found.values

    return read


@pytest.fixture
def complaints(resolved, tmp_path):
    """Return the complaints about such a file, without its directory."""
    return lambda content: [line.replace(f"{tmp_path}/", "") for _, line in resolved(content).complaints]


@pytest.mark.parametrize("content", [codecs.BOM_UTF8 + b"workers = 3\n", b"workers = 3\r\n", b"# \xc3\xbc\nworkers=3"])
def test_byte_order_marks_and_windows_line_ends_are_accepted(read, content):
    assert read(content)["workers"] == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            codecs.BOM_UTF16_LE + "workers = 3".encode("utf-16-le"),
            "q.toml: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        ),
        (b"# \xfc\n", "q.toml: 'utf-8' codec can't decode byte 0xfc in position 2: invalid start byte"),
        ("workers", "q.toml: Expected '=' after a key in a key/value pair (at line 1, column 8)"),
        ('a = 1\nworkers = "x\nb = 2', "q.toml: Illegal character '\\n' (at line 2, column 13)"),
        ('a = """', "q.toml: Unterminated string (at end of document)"),
    ],
)
def test_a_file_that_is_not_utf_8_or_not_toml_is_refused(complaints, content, said):
    assert complaints(content) == [said]


@pytest.mark.parametrize("content", ["workers = " + "[" * 5_000, "workers = " + "9" * 5_000])
def test_a_file_beyond_what_python_reads_is_refused(complaints, content):
    (line,) = complaints(content)
    assert line.startswith("q.toml: ")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("workers = 1\n\n'workers' = 2", "Cannot overwrite a value (at line 3, column 14)"),
        (
            "[limit]\nsegments = 1\nqueues = 2\nsegments = 3\n",
            "Cannot overwrite a value (at line 4, column 13)",
        ),
        (
            "[limit]\nqueues = 1\n[storage]\n[limit]\nsegments = 2",
            "Cannot declare ('limit',) twice (at line 4, column 7)",
        ),
        ("limit.queues = 1\n[limit]\n", "Cannot declare ('limit',) twice (at line 2, column 7)"),
        ("limit = 1\nlimit.queues = 2", "Cannot overwrite a value (at line 2, column 17)"),
    ],
)
def test_a_duplicate_is_reported_with_its_line(complaints, content, said):
    assert complaints(content) == [f"q.toml: {said}"]


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("limit-connections = 5", "limit-connections is not an option; did you mean [limit] connections?"),
        ("limit_connections = 5", "limit_connections is not an option; did you mean [limit] connections?"),
        ("connections = 5", "connections is not an option; did you mean [limit] connections?"),
        ("conections = 5", "conections is not an option; did you mean [limit] connections?"),
        ("[limit]\nlimit-queues = 5", "[limit] limit-queues is not an option; did you mean [limit] queues?"),
        ("storage-encoding = 'packed'", "storage-encoding is not an option; did you mean [storage] encoding?"),
        ("[storage]\nworkers = 5", "[storage] workers is not an option; did you mean workers, before all tables?"),
        ("[tls]\nkey = 'k'", "[tls] key is not an option; did you mean tls-key, before all tables?"),
        ("[limits]\nqueues = 5", "[limits] queues is not an option; did you mean [limit] queues?"),
    ],
)
def test_a_misplaced_option_is_reported_with_its_place(complaints, content, hint):
    (line,) = complaints(content)
    assert line.partition(": ")[2] == hint


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (r'data-dir = "a\u0000b"', r"data-dir is 'a\x00b', which has a NUL character"),
        (r'listen = ["unix:a\u0000b", "127.0.0.1:1"]', r"listen is 'unix:a\x00b', which has a NUL character"),
        (r'listen-tls = "unix:\u0000"', r"listen-tls is 'unix:\x00', which has a NUL character"),
        (r'manhole = "unix:a\u0000b"', r"manhole is 'unix:a\x00b', which has a NUL character"),
        (r'tls-client-name = "\u0000"', r"tls-client-name is '\x00', which has a NUL character"),
        (r'"a\nb\u007f\u2028" = 1', r"a\nb\x7f\u2028 is not an option"),
    ],
)
def test_an_invalid_character_is_refused_and_printed_escaped(complaints, content, said):
    assert complaints(content) == [f"q.toml: {said}"]


def test_other_control_characters_are_permitted_in_a_path(read):
    assert read(r'data-dir = "a\u007f\n\u0001\u00fc\U0001f980"')["data-dir"] == "a\x7f\n\x01\u00fc\U0001f980"


def test_a_home_directory_is_expanded_in_every_path(read, monkeypatch):
    monkeypatch.setenv("HOME", "/home/q:1")
    names = ("data-dir", "tls-certificate", "tls-key", "tls-client-ca", "manhole-password-file")
    found = read("".join(f"{name} = '~/x'\n" for name in names))
    assert {found[name] for name in names} == {"/home/q:1/x"}
    monkeypatch.setattr(Path, "home", lambda: pytest.fail("the home directory is the environment's"))
    assert read("data-dir = './~/x'")["data-dir"] == "./~/x"


def test_a_home_directory_that_is_not_utf_8_is_refused(complaints, monkeypatch):
    monkeypatch.setenv("HOME", "/h\udcff")
    assert complaints("data-dir = '~/x'") == [r"q.toml: data-dir is '/h\udcff/x', which is not UTF-8"]


def test_the_home_directory_of_an_unknown_user_is_refused(complaints):
    (line,) = complaints("data-dir = '~no-such-user/x'")
    no_home = "and no home directory is known for ~no-such-user; that name in a directory is ./~no-such-user"
    assert line == f"q.toml: data-dir is '~no-such-user/x', {no_home}"


@pytest.mark.parametrize(
    "text", ["unix:~/a b:mode=600", "unix:address=~/a", "haproxy:unix:~/a", "haproxy:haproxy:unix:~/a/b"]
)
def test_a_home_directory_is_expanded_in_the_path_of_a_socket(read, monkeypatch, text):
    monkeypatch.setenv("HOME", "/h:1")
    (listen,) = read(f"listen = '{text}'")["listen"]
    assert listen.text == text
    assert listen.endpoint.startswith(text.partition(":mode")[0].replace("~/", r"/h\:1/"))
    assert parse_access("unix:~/m", None).listen.endpoint == r"unix:/h\:1/m:mode=600:lockfile=1"


def test_a_client_finds_the_same_socket(monkeypatch):
    monkeypatch.setenv("HOME", "/h:1")
    assert parse("unix:~/a").path == "/h:1/a"
    assert parse("unix:path=~/a").path == "/h:1/a"
    with pytest.raises(InvalidRequest, match=r"the address is '~no-such-user', and no home directory is known"):
        parse("unix:~no-such-user/a")


def test_a_command_finds_the_same_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for words, environment in ([["-d", "~/q"], {}], [[], {"QUEUEBER_DATA_DIR": "~/q"}]):
        result = CliRunner(env=environment).invoke(stats, words, obj=ServerSelection(run=None, address="127.0.0.1:1"))
        assert f"no server runs on {tmp_path}/q" in result.output
