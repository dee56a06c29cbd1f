"""The configuration file: what is read, and how each kind of mistake in it is named."""

import codecs
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from queueber.cli.control_commands import stats
from queueber.client.connect import endpoint_of
from queueber.errors import InvalidRequest
from queueber.server.admin.console.access import parse_access
from queueber.server.config.settings import OPTIONS
from queueber.server.config.sources import Wrong, resolve


@pytest.fixture
def read(tmp_path):
    """The values of a file with these bytes or this text, by the options' names."""

    def read(content):
        path = tmp_path / "q.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        found = resolve(OPTIONS, arguments={"config": [str(path)]}, environment={})
        return {name: setting.value for name, setting in found.items()}

    return read


@pytest.fixture
def complaints(read, tmp_path):
    """The lines about such a file, without its directory."""

    def complaints(content):
        with pytest.raises(Wrong) as wrong:
            read(content)
        assert wrong.value.status == 78
        return str(wrong.value).replace(f"{tmp_path}/", "").splitlines()

    return complaints


@pytest.mark.parametrize("content", [codecs.BOM_UTF8 + b"workers = 3\n", b"workers = 3\r\n", b"# \xc3\xbc\nworkers=3"])
def test_what_editors_make_is_read(read, content):
    assert read(content)["workers"] == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (codecs.BOM_UTF16_LE + "workers = 3".encode("utf-16-le"), "q.toml: is UTF-16; it must be UTF-8"),
        (codecs.BOM_UTF16_BE + "workers = 3".encode("utf-16-be"), "q.toml: is UTF-16; it must be UTF-8"),
        (b"workers = 3\n# \xfc\n", "q.toml line 2: byte 0xfc is not UTF-8"),
        (b"#" * (1 << 20) + b"\n", "q.toml: has more than 1,048,576 bytes, which no configuration has"),
        ("workers = " + "[" * 5_000, "q.toml: has a number that is too long, or lists that are nested too deeply"),
        ("workers = " + "9" * 5_000, "q.toml: has a number that is too long, or lists that are nested too deeply"),
        ("workers", "q.toml line 1: Expected '=' after a key in a key/value pair (column 8)"),
        ('a = 1\nworkers = "x\nb = 2', "q.toml line 2: Illegal character '\\n' (column 13)"),
        ('a = """', "q.toml: Unterminated string (at end of document)"),
    ],
)
def test_what_is_no_file_of_ours_is_named_in_plain_words(complaints, content, said):
    assert complaints(content) == [said]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("workers = 1\n\n'workers' = 2", "line 3: workers is there already, at line 1"),
        ("[limit]\nsegments = 1\nqueues = 2\nsegments = 3\n", "line 4: [limit] segments is there already, at line 2"),
        ("listen = [\n'a',\n]\nlisten = [\n'b']\nworkers = 1", "line 5: listen is there already, at line 1"),
        ("[limit]\nqueues = 1\n[storage]\n[limit]\nsegments = 2", "line 4: [limit] is there already, at line 1"),
        ("limit.queues = 1\n[limit]\n", "line 2: [limit] is there already, at line 1 as [limit] queues"),
        ("limit = 1\nlimit.queues = 2", "line 2: [limit] queues is there already, at line 1 as limit"),
        ("limit.queues = 1\nlimit = 2", "line 2: limit is there already, at line 1 as [limit] queues"),
        ("[a.b]\nc = 1\n[a]\nb.c = 2\n", "line 4: [a.b] c is there already, at line 2"),
        ("limit = {queues = 1, queues = 2}", "line 1: Duplicate inline table key 'queues' (column 32)"),
    ],
)
def test_what_is_there_twice_is_named_with_both_lines(complaints, content, said):
    assert complaints(content) == [f"q.toml {said}"]


def test_a_long_list_is_read_a_few_times_and_not_with_each_of_its_lines(complaints, monkeypatch):
    count = 0
    loads = tomllib.loads

    def counted(text):
        nonlocal count
        count += 1
        return loads(text)

    monkeypatch.setattr("tomllib.loads", counted)
    names = "".join(f'  "worker-{number}",\n' for number in range(500))
    assert complaints(f"tls-client-name = [\n{names}]\nwokers = 1\n") == [
        "q.toml line 503: wokers is not an option; did you mean workers?"
    ]
    assert count < 10


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("limit-connections = 5", "limit-connections is not an option; it belongs into [limit] as connections"),
        ("limit_connections = 5", "limit_connections is not an option; it belongs into [limit] as connections"),
        ("connections = 5", "connections is not an option; it belongs into [limit] as connections"),
        ("conections = 5", "conections is not an option; did you mean [limit] connections?"),
        ("[limit]\nlimit-queues = 5", "[limit] limit-queues is not an option; it belongs into [limit] as queues"),
        ("storage-encoding = 'packed'", "storage-encoding is not an option; it belongs into [storage] as encoding"),
        ("[storage]\nworkers = 5", "[storage] workers is not an option; it belongs before all tables as workers"),
        ("[tls]\nkey = 'k'", "[tls] is not an option; it belongs before all tables as tls-key"),
        ("[limits]\nqueues = 5", "[limits] is not an option; did you mean [limit]?"),
    ],
)
def test_an_option_in_the_wrong_place_is_pointed_to_its_own(complaints, content, hint):
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
def test_a_character_that_cannot_be_used_does_not_reach_the_start_nor_the_terminal(complaints, content, said):
    assert complaints(content) == [f"q.toml line 1: {said}"]


def test_other_characters_are_a_path_s_own_business(read):
    assert read(r'data-dir = "a\u007f\n\u0001\u00fc\U0001f980"')["data-dir"] == "a\x7f\n\x01\u00fc\U0001f980"


def test_a_home_directory_is_expanded_in_every_path(read, monkeypatch):
    monkeypatch.setenv("HOME", "/home/q:1")
    names = ("data-dir", "tls-certificate", "tls-key", "tls-client-ca", "manhole-password-file")
    found = read("".join(f"{name} = '~/x'\n" for name in names))
    assert {found[name] for name in names} == {"/home/q:1/x"}
    monkeypatch.setattr(Path, "home", lambda: pytest.fail("the home directory is the environment's"))
    assert read("data-dir = './~/x'")["data-dir"] == "./~/x"


def test_a_home_directory_of_no_user_is_refused(complaints):
    (line,) = complaints("data-dir = '~no-such-user/x'")
    no_home = "and no home directory is known for ~no-such-user; that name in a directory is ./~no-such-user"
    assert line == f"q.toml line 1: data-dir is '~no-such-user/x', {no_home}"


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
    assert endpoint_of(None, "unix:~/a")._path == "/h:1/a"
    assert endpoint_of(None, "unix:path=~/a")._path == "/h:1/a"
    with pytest.raises(InvalidRequest, match=r"the address is '~no-such-user', and no home directory is known"):
        endpoint_of(None, "unix:~no-such-user/a")


def test_a_command_finds_the_same_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for words, environment in ([["-d", "~/q"], {}], [[], {"QUEUEBER_DATA_DIR": "~/q"}]):
        result = CliRunner(env=environment).invoke(stats, words, obj=SimpleNamespace(run=None))
        assert f"no server runs on {tmp_path}/q" in result.output
