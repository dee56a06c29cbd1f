"""The calls of each command, and its output."""

import errno
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from queueber import __version__
from queueber.cli import commands
from queueber.cli.commands import EXIT_EMPTY
from queueber.cli.server_options import SERVER_OPTIONS
from queueber.client import Batch, PolledItem, Tls
from queueber.errors import InvalidRequest
from queueber.fixed_limits import FRAME_BYTES_MAX
from queueber.process import CLIENT_VARIABLES
from queueber.server.config.settings import OPTIONS
from queueber.server.config.sources import read_environment

ID, LEASE = bytes(range(16)), bytes(range(16, 32))
ID_TEXT, LEASE_TEXT = "00010203-0405-0607-0809-0a0b0c0d0e0f", "10111213-1415-1617-1819-1a1b1c1d1e1f"
CALLS = ("add", "poll", "remove", "extend")


def batch(*contents, attempt=1):
    return Batch(tuple(PolledItem(each, ID, attempt, 1_000) for each in contents), LEASE, 1_700_000_000_123)


def test_add_prints_the_ids(shell):
    shell.default.answers["add"] = [ID, LEASE]
    result = shell("add", "one", "two")
    assert (result.exit_code, result.stdout) == (0, f"{ID_TEXT}\n{LEASE_TEXT}\n")
    assert shell.calls == [("add", (b"one", b"two"), 0)]
    assert (shell.addresses, shell.names) == (["127.0.0.1:9090"], [])


def test_the_address_and_the_queue_can_be_chosen(shell):
    shell("--addr", "[::1]:9", "--queue", "mail", "add", "x")
    assert (shell.addresses, shell.names) == (["[::1]:9"], ["mail"])


def test_a_url_has_the_queue_unless_an_option_names_one(shell):
    url = "queueber://[::1]:9/a%20b"
    shell("--addr", url, "add", "x")
    shell("add", "--addr", url, "--queue", "mail", "x")
    shell("add", "--addr", "queueber://[::1]:9", "x")
    assert (shell.addresses, shell.names) == ([url, url, "queueber://[::1]:9"], ["a b", "mail"])


def test_an_invalid_url_is_a_mistake_of_usage(shell):
    result = shell("--addr", "queueber://host/mail?timeout=5", "add", "x")
    assert result.exit_code != 0
    assert "--addr: the URL has an unknown parameter 'timeout'" in result.output


@pytest.mark.parametrize("command", [("add", "x"), ("poll",), ("remove", ID_TEXT, LEASE_TEXT), ("health",)])
def test_the_server_may_be_named_before_the_command_and_after_it(shell, command):
    options = ("--addr", "[::1]:9", "--queue", "mail", "--tls-ca", "ca.pem", "--tls-server-name", "q")
    shell(*options, *command)
    shell(*command, *options)
    shell(*options[:2], *command, *options[2:])
    assert shell.addresses == ["[::1]:9"] * 3
    assert shell.names == ["mail"] * 3 * (command != ("health",))
    assert shell.tls == [Tls(ca=Path("ca.pem"), server_name="q")] * 3


def test_options_after_the_command_take_precedence(shell):
    shell("--addr", "a:1", "--queue", "one", "add", "--addr", "b:2", "--queue", "two", "x")
    assert (shell.addresses, shell.names) == (["b:2"], ["two"])


def test_the_server_may_be_named_in_the_environment(shell):
    environment = {
        "QUEUEBER_ADDR": "a:1",
        "QUEUEBER_QUEUE": "mail",
        "QUEUEBER_TLS_CA": "ca.pem",
        "QUEUEBER_TLS_SERVER_NAME": "q",
        "QUEUEBER_CLIENT_CERTIFICATE": "me.pem",
        "QUEUEBER_CLIENT_KEY": "key.pem",
    }
    tls = Tls(ca=Path("ca.pem"), server_name="q", certificate=Path("me.pem"), key=Path("key.pem"))
    shell("add", "x", environment=environment)
    assert (shell.addresses, shell.names, shell.tls) == (["a:1"], ["mail"], [tls])
    shell("--queue", "one", "add", "--addr", "b:2", "x", environment=environment)
    assert (shell.addresses[1:], shell.names[1:], shell.tls[1:]) == (["b:2"], ["one"], [tls])
    assert [name for name in environment if name not in shell("--help").stdout] == []


def test_a_server_in_the_same_environment_does_not_take_them_for_slips():
    options = [*SERVER_OPTIONS, *(option for name in CALLS for option in commands.queueber.commands[name].params)]
    assert {option.envvar for option in options if option.envvar} == CLIENT_VARIABLES
    assert not {option.variable for option in OPTIONS} & CLIENT_VARIABLES
    environment = dict.fromkeys(CLIENT_VARIABLES, "x") | {"QUEUEBER_ADR": "x"}
    assert [*read_environment(environment)[1]] == ["QUEUEBER_ADR"]


def test_tls_may_be_switched_on_in_the_environment(shell):
    for value in ("yes", "no", ""):
        shell("add", "x", environment={"QUEUEBER_TLS": value})
    assert shell.tls == [Tls(), None, None]


def test_the_server_s_own_variables_do_not_configure_its_clients(shell):
    shell("add", "x", environment={"QUEUEBER_TLS_CERTIFICATE": "server.pem", "QUEUEBER_TLS_KEY": "server.key"})
    assert shell.tls == [None]


def test_add_takes_arguments_and_files(shell, tmp_path):
    path = tmp_path / "contents"
    path.write_bytes(b"\xff\0\n")
    shell("add", "--file", str(path), "one", "--file", str(path))
    assert shell.calls == [("add", (b"one", b"\xff\0\n", b"\xff\0\n"), 0)]


def test_add_takes_files_that_are_longer_than_servers_take_by_default(shell, tmp_path):
    """A server can be configured to take them; a part of one would be worse than an error."""
    path = tmp_path / "file"
    path.write_bytes(bytes(FRAME_BYTES_MAX) + b"the end")
    shell("add", "--file", str(path))
    assert shell.calls == [("add", (path.read_bytes(),), 0)]


@pytest.mark.parametrize("arguments", [(), ("--file", "-")])
def test_add_takes_standard_input_as_one_item(shell, arguments):
    shell("add", *arguments, stdin=b"line\n\xff\n")
    assert shell.calls == [("add", (b"line\n\xff\n",), 0)]


@pytest.mark.parametrize("arguments", [(), ("--file", "-"), ("x", "--file", "-")])
def test_an_empty_standard_input_adds_nothing(shell, arguments):
    """A command before the pipe that failed must not leave an item."""
    result = shell("add", *arguments)
    assert (result.exit_code, result.stdout, shell.calls) == (1, "", [])
    assert result.stderr == (
        "queueber: Standard input is empty, and nothing was added; for an empty item, give '' as CONTENTS.\n"
    )


def test_an_empty_argument_adds_an_empty_item(shell, tmp_path):
    (tmp_path / "empty").touch()
    shell("add", "", "--file", str(tmp_path / "empty"))
    assert shell.calls == [("add", (b"", b""), 0)]


@pytest.mark.parametrize("contents", ["-5", "-x", "--6"])
def test_contents_that_look_like_an_option_are_added_as_the_error_says(shell, contents):
    result = shell("add", contents)
    assert (result.exit_code, shell.calls) == (1, [])
    assert result.stderr.count("\n") == 1
    remedy = result.stderr.rstrip("\n").partition("If it is CONTENTS, put -- before it: ")[2]
    assert remedy == f"queueber add -- {contents}"
    shell(*remedy.split()[1:])
    assert shell.calls == [("add", (contents.encode(),), 0)]


@pytest.mark.parametrize(("arguments", "why"), [(("poll", "-5"), "no arguments"), (("add", "--dely", "5"), "a slip")])
def test_a_misspelt_option_gets_no_advice_about_dashes(shell, arguments, why):
    assert "put -- before it" not in shell(*arguments).stderr


def test_an_argument_may_hold_any_bytes(shell):
    shell("add", "\udcff")
    assert shell.calls == [("add", (b"\xff",), 0)]


@pytest.mark.parametrize(
    ("given", "ms"), [("0", 0), ("2", 2_000), ("0.5", 500), ("1.001", 1_001), ("0.0001", 1), ("1e3", 1_000_000)]
)
def test_spans_are_seconds_rounded_up_to_a_millisecond(shell, given, ms):
    shell("add", "x", "--delay", given)
    assert shell.calls == [("add", (b"x",), ms)]


def test_add_prints_json(shell):
    shell.default.answers["add"] = [ID]
    assert json.loads(shell("add", "x", "--json").stdout) == {"ids": [ID_TEXT]}


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        ((), ("poll", 1, 30_000, None)),
        (("-n", "5", "--lease", "1.5", "--wait", "2"), ("poll", 5, 1_500, 2_000)),
        (("--no-wait",), ("poll", 1, 30_000, 0)),
        (("--wait", "0"), ("poll", 1, 30_000, 0)),
    ],
)
def test_poll_sends_the_number_of_items_and_the_lease(shell, arguments, call):
    assert shell("poll", *arguments).exit_code == EXIT_EMPTY
    assert shell.calls == [call]


@pytest.mark.parametrize(
    ("command", "limit"),
    [
        (("add", "x"), 1_500),
        (("poll",), None),
        (("poll", "--no-wait"), 1_500),
        (("poll", "--wait", "2"), 3_500),
        (("remove", ID_TEXT, LEASE_TEXT), 1_500),
        (("extend", LEASE_TEXT), 1_500),
    ],
)
def test_a_call_has_a_time_limit_to_which_the_wait_of_a_poll_is_added(shell, command, limit):
    shell(*command)
    shell(*command, "--timeout", "1.5")
    shell(*command, environment={"QUEUEBER_TIMEOUT": "1.5"})
    assert shell.default.timeouts == [None, limit, limit]


def test_a_time_limit_of_zero_is_refused(shell):
    result = shell("add", "x", "--timeout", "0")
    assert (result.exit_code, shell.calls) == (1, [])
    assert "'--timeout'" in result.stderr
    assert result.stderr.endswith(": 0 is too short for an answer.\n")


def test_poll_prints_the_lease_and_a_line_for_each_item(shell):
    shell.default.answers["poll"] = batch(b"hello", b"Stra\xc3\x9fe", attempt=2)
    assert shell("poll").stdout.splitlines() == [
        f"lease {LEASE_TEXT} until 2023-11-14T22:13:20.123+00:00",
        f"item {ID_TEXT} attempt 2: hello",
        f"item {ID_TEXT} attempt 2: Straße",
    ]


def test_no_contents_control_the_terminal(shell):
    shell.default.answers["poll"] = batch(b"\x1b[2J", b"a\nb", b"\xff")
    lines = shell("poll").stdout.splitlines()
    assert [line.partition(": ")[2] for line in lines[1:]] == ['"\\u001b[2J"', '"a\\nb"', "base64 /w=="]


@pytest.mark.parametrize("form", [(), ("--json",), ("--raw",)])
@pytest.mark.parametrize("stream", ["full", "closed"])
def test_items_that_cannot_be_printed_are_given_back(shell, monkeypatch, stream, form):
    """The exit status is that of an error, and an empty poll gives nothing back."""
    echo = click.echo

    def full(text, err=False, nl=True):
        if not err:
            raise OSError(errno.ENOSPC, "No space left on device")
        echo(text, err=True)

    monkeypatch.setattr(click, "echo", full)
    if stream == "closed":
        monkeypatch.setattr(commands, "sys", SimpleNamespace(stdout=None, exit=sys.exit))
    shell.default.answers["poll"] = batch(b"hello")
    result = shell("poll", *form)
    assert result.exit_code == 1
    assert ("No space left on device" if stream == "full" else "standard output is closed") in result.stderr
    assert shell.calls == [("poll", 1, 30_000, None), ("extend", shell.default.answers["poll"].lease, 1)]
    shell.calls.clear()
    shell.default.answers["poll"] = Batch((), b"", 0)
    shell("poll", "--no-wait", *form)
    assert shell.calls == [("poll", 1, 30_000, 0)]


def test_poll_prints_that_there_are_no_items(shell):
    result = shell("poll", "--no-wait")
    assert (result.exit_code, result.stdout) == (3, "no items\n")


@pytest.mark.parametrize("wait", [("--no-wait",), ("--wait", "0"), ("--wait", "1")])
@pytest.mark.parametrize("form", [(), ("--json",), ("--raw",)])
def test_an_empty_poll_has_an_exit_status_that_its_help_names(shell, wait, form):
    assert shell("poll", *wait, *form).exit_code == EXIT_EMPTY == 3
    shell.default.answers["poll"] = batch(b"x")
    assert shell("poll", *wait, *form).exit_code == 0
    assert "The exit status is 3 if" in shell("poll", "--help").stdout


@pytest.mark.parametrize("contents", [b"", b"a\nb", b"\x1b[2J\0\xff", b"line\r\n"])
def test_a_raw_poll_writes_the_contents_as_they_are_and_the_ids_elsewhere(shell, contents):
    shell.default.answers["poll"] = batch(contents, attempt=2)
    result = shell("poll", "--raw")
    assert (result.exit_code, result.stdout_bytes) == (0, contents)
    assert result.stderr.splitlines() == [
        f"lease {LEASE_TEXT} until 2023-11-14T22:13:20.123+00:00",
        f"item {ID_TEXT} attempt 2",
    ]


def test_an_empty_raw_poll_writes_nothing(shell):
    assert shell("poll", "--raw", "--no-wait").stdout_bytes == b""


def test_poll_prints_json_with_the_encoding_of_the_contents(shell):
    shell.default.answers["poll"] = batch(b"\xff", b"text")
    found = json.loads(shell("poll", "--json").stdout)
    assert (found["lease"], found["leaseDeadlineMs"]) == (LEASE_TEXT, 1_700_000_000_123)
    assert found["items"] == [
        {"id": ID_TEXT, "attempt": 1, "addedAtMs": 1_000, "contents": "/w==", "encoding": "base64"},
        {"id": ID_TEXT, "attempt": 1, "addedAtMs": 1_000, "contents": "text", "encoding": "utf-8"},
    ]


def test_json_of_an_empty_poll_has_no_lease(shell):
    assert json.loads(shell("poll", "--json").stdout) == {"lease": None, "leaseDeadlineMs": 0, "items": []}


def test_unusual_ids_and_times_of_foreign_servers_are_printed(shell):
    """Ids that are no UUIDs, and a deadline beyond the calendar."""
    shell.default.answers["poll"] = Batch((PolledItem(b"", b"\1\2", 1, 0),), b"\3", 1 << 63)
    assert shell("poll").stdout.splitlines() == [f"lease 03 until {1 << 63} ms", "item 0102 attempt 1: "]


@pytest.mark.parametrize("item_id", [ID_TEXT, ID.hex(), ID_TEXT.upper()])
def test_remove_takes_uuids_and_hexadecimal(shell, item_id):
    result = shell("remove", item_id, LEASE_TEXT)
    assert (result.exit_code, result.stdout) == (0, "removed\n")
    assert shell.calls == [("remove", ID, LEASE)]


def test_extend_takes_the_lease_and_the_new_span(shell):
    result = shell("extend", LEASE_TEXT, "--lease", "60")
    assert (result.exit_code, result.stdout) == (0, "extended\n")
    assert shell.calls == [("extend", LEASE, 60_000)]


@pytest.mark.parametrize(("arguments", "done"), [(("remove", ID_TEXT), "removed"), (("extend",), "extended")])
def test_a_call_that_changed_nothing_is_an_error_in_json_too(shell, arguments, done):
    shell.default.answers[arguments[0]] = False
    result = shell(*arguments, LEASE_TEXT)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"queueber: not {done}: ")
    assert result.stderr.count("\n") == 1
    result = shell(*arguments, LEASE_TEXT, "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, {done: False})


def test_json_states_the_result(shell):
    assert json.loads(shell("remove", ID_TEXT, LEASE_TEXT, "--json").stdout) == {"removed": True}
    assert json.loads(shell("extend", LEASE_TEXT, "--json").stdout) == {"extended": True}


def test_an_error_is_one_line_on_standard_error(shell):
    shell.default.answers["add"] = InvalidRequest("items is 2 items;\nthe limit is 1")
    result = shell("add", "x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "queueber: items is 2 items; the limit is 1\n"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((), ["Missing command. All commands: queueber --help"]),
        (("--addr", "here:1"), ["Missing command. All commands: queueber --help"]),
        (("destroy",), ["No such command 'destroy'. All commands: queueber --help"]),
        (("queus",), ["No such command 'queus'. Did you mean 'queues'?"]),
        (("pol",), ["No such command 'pol'. Did you mean 'poll'?"]),
        (("poll", "-n", "0"), ["'-n'", "0 is not in the range 1<=x<=4294967295"]),
        (("poll", "--lease", "soon"), ["'--lease'", "'soon' is not a number of seconds"]),
        (("poll", "--wait", "-1"), ["'--wait'", "-1 is not between 0 and 1,000,000,000,000 seconds"]),
        (("poll", "--wait", "nan"), ["'--wait'", "nan is not between"]),
        (("poll", "--wait", "1", "--no-wait"), ["--wait and --no-wait contradict each other"]),
        (("poll", "--raw", "-n", "2"), ["--raw writes the contents of 1 item, and -n is 2", "--json"]),
        (("poll", "--raw", "--json"), ["--raw and --json contradict each other"]),
        (("remove", "x", LEASE_TEXT), ["'ITEM'", "'x' is neither a UUID nor 32 hexadecimal digits"]),
        (("remove", ID_TEXT), ["Missing argument 'LEASE'"]),
        (("add", "--file", "/does/not/exist"), ["'--file'", "/does/not/exist"]),
        (("add", "--delay", "inf"), ["'--delay'", "inf is not between"]),
    ],
)
def test_wrong_arguments_are_one_line_that_names_them(shell, arguments, parts):
    result = shell(*arguments)
    assert (result.exit_code, result.stdout, shell.calls) == (1, "", [])
    assert result.stderr.startswith("queueber: ")
    assert result.stderr.count("\n") == 1
    assert all(part in result.stderr for part in parts)


def test_the_version_and_help_are_no_errors(shell):
    result = shell("--version")
    assert (result.exit_code, result.stdout) == (0, f"queueber, version {__version__}\n")
    for command in ((), ("add",), ("poll",), ("remove",), ("extend",)):
        result = shell(*command, "--help")
        assert result.exit_code == 0
        assert result.stdout.startswith("Usage: ")


def test_the_help_of_top_has_its_own_time_limit(shell):
    assert "wait for an answer; by default 5, " in " ".join(shell("top", "--help").stdout.split())


@pytest.mark.slow
def test_importing_the_command_installs_no_reactor():
    check = "import sys, queueber.cli.commands; sys.exit('twisted.internet.reactor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
