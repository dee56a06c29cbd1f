"""The console: its access control, its commands and its sessions."""

import os
import re
import threading
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from queueber.server.admin.console import commands as questions
from queueber.server.admin.console import prompt, session
from queueber.server.admin.console.access import ConsoleAccess, PasswordFile, parse_access, read_password
from queueber.server.admin.console.commands import Commands
from queueber.server.admin.console.profiler import Sampler, Samples, thread_states
from queueber.server.admin.console.tables import Table, printable_name
from queueber.server.net.connections import Connections
from queueber.units import SpanMs, rounded_span
from queueber.values import NewItem

SECRET = "a long enough secret"


@pytest.fixture
def password_file(tmp_path):
    path = tmp_path / "password"
    path.write_text(f"ada:{SECRET}\n")
    path.chmod(0o600)
    return path


class TestAccess:
    @pytest.mark.parametrize(
        "text",
        ["unix:/run/q.sock", "unix:/run/q.sock:mode=600", "unix:/run/q.sock:lockfile=0", "unix:/run/q.sock:mode=0600"],
    )
    def test_a_unix_socket_has_mode_600(self, text):
        assert parse_access(text, None).listen.endpoint == "unix:/run/q.sock:mode=600:lockfile=1"

    @pytest.mark.parametrize("text", ["unix:/run/q.sock:mode=666", "unix:/run/q.sock:mode=660", "unix:/q:mode="])
    def test_another_mode_is_refused(self, text):
        with pytest.raises(ValueError, match="always 600"):
            parse_access(text, None)

    @pytest.mark.parametrize("text", ["127.0.0.1:9092", "localhost:9092", "[::1]:9092", "tcp:9092:interface=127.0.0.1"])
    def test_loopback_needs_a_password(self, text, password_file):
        with pytest.raises(ValueError, match="--manhole-password-file"):
            parse_access(text, None)
        assert parse_access(text, password_file).password_file == PasswordFile(password_file)

    @pytest.mark.parametrize(
        "text",
        [
            "0.0.0.0:9092",
            ":9092",
            "tcp:9092",
            "example.org:9092",
            "systemd:domain=INET:index=0",
            "haproxy:tcp:1",
            "stdio:",
        ],
    )
    def test_other_addresses_are_refused_even_with_a_password(self, text, password_file):
        with pytest.raises(ValueError, match="unix:PATH, or an address of this machine"):
            parse_access(text, password_file)

    def test_a_unix_socket_with_a_password_file_is_refused(self, password_file):
        with pytest.raises(ValueError, match="needs no --manhole-password-file"):
            parse_access("unix:/q", password_file)

    def test_credentials_match_as_a_whole(self, password_file):
        password = read_password(password_file)
        assert password.matches(b"ada", SECRET.encode())
        assert not password.matches(b"ada", b"")
        assert not password.matches(b"bob", SECRET.encode())
        assert SECRET not in repr(password)

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            ("", "one line"),
            (SECRET, "one line"),
            (f":{SECRET}", "one line"),
            (f"a:{SECRET}\nb:c", "one line"),
            ("a:b", "at least 12"),
        ],
    )
    def test_an_invalid_password_file_is_refused(self, content, why, password_file):
        password_file.write_text(content)
        with pytest.raises(ValueError, match=why):
            read_password(password_file)

    def test_the_file_is_read_again_unless_the_user_has_changed(self, password_file, monkeypatch):
        file = PasswordFile(password_file)
        file.read()
        password_file.write_text(f"bob:{SECRET}\n")
        assert file.read().user == b"bob"
        monkeypatch.setattr(os, "geteuid", lambda: 65_534)
        assert (file.is_in_reach, file.read().user) == (False, b"ada")
        with pytest.raises(ValueError, match="chmod 600"):
            PasswordFile(password_file).read()

    def test_so_it_is_unless_the_root_has_changed(self, password_file, tmp_path, monkeypatch):
        file = PasswordFile(password_file)
        file.read()
        password_file.unlink()
        with pytest.raises(ValueError, match="No such file"):
            file.read()
        root = tmp_path.stat()
        monkeypatch.setattr(Path, "stat", lambda path: root)
        assert file.read().user == b"ada"

    def test_a_relative_path_means_the_file_of_the_start_after_a_change_of_the_directory(
        self, password_file, tmp_path, monkeypatch
    ):
        (tmp_path / "run").mkdir()
        monkeypatch.chdir(password_file.parent)
        file = PasswordFile(Path(password_file.name))
        file.read()
        monkeypatch.chdir(tmp_path / "run")
        assert file.read().user == b"ada"
        assert file.path == password_file

    def test_a_file_that_others_may_read_is_refused(self, password_file):
        password_file.chmod(0o640)
        with pytest.raises(ValueError, match="chmod 600"):
            read_password(password_file)

    def test_a_pipe_is_refused_without_blocking(self, tmp_path):
        os.mkfifo(tmp_path / "pipe", 0o600)
        with pytest.raises(ValueError, match="not a file"):
            read_password(tmp_path / "pipe")
        with pytest.raises(ValueError, match="No such file"):
            read_password(tmp_path / "nothing")


class TestTables:
    def test_numbers_are_aligned_to_the_right(self):
        table = Table(("name", "count"), [("a", 1_000), ("long", 2)], "note")
        assert repr(table).splitlines() == ["name  count", "----  -----", "a     1,000", "long      2", "note"]

    def test_an_empty_table_has_its_headings(self):
        assert repr(Table(("name", "count"), [])).splitlines() == ["name  count", "----  -----"]

    def test_a_name_cannot_move_the_cursor(self):
        assert printable_name("\x1b[2J") == "'\\x1b[2J'"
        assert printable_name("é") == "é"
        assert len(printable_name("x" * 255)) == 40

    @pytest.mark.parametrize(
        ("milliseconds", "text"),
        [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (90_000, "1.5 min"),
            (5_400_000, "1.5 h"),
            (216_000_000, "2.5 d"),
            (-2_000, "-2.0 s"),
        ],
    )
    def test_durations_are_short(self, milliseconds, text):
        assert rounded_span(milliseconds) == text


def rows(answer):
    """Return the rows of a table, or of a Deferred that has fired with one."""
    if isinstance(answer, Deferred):
        found = []
        answer.addCallback(found.append)
        (answer,) = found
    return [tuple(row) for row in answer.rows]


@pytest.fixture
def ask(diagnostics):
    return Commands(diagnostics)


@pytest.fixture
def busy(server):
    """A server with items, leases and polls."""
    peer = server.connect()
    peer.add(*[b"x"] * 5)
    peer.poll(2, lease=60_000)
    peer.poll(1, lease=5_000)
    peer.poll(3, target=peer.queue("mail"))
    server.settle()
    return server


class TestQuestions:
    def test_help_lists_all_commands(self, ask):
        assert [name.partition("(")[0] for name, _ in rows(ask.help())] == list(ask.all())
        assert all(answer for _, answer in rows(ask.help()))

    def test_queues(self, ask, busy):
        assert rows(ask.queues()) == [("default", 2, 0, 3, 0, 0, "0 ms"), ("mail", 0, 0, 0, 0, 1, "")]

    def test_leases_that_end_first_come_first(self, ask, busy):
        assert [row[1:] for row in rows(ask.leases())] == [
            ("default", 1, "live", "5.0 s"),
            ("default", 2, "live", "1.0 min"),
        ]
        table = ask.leases(1)
        assert (len(table.rows), table.note) == (1, "1 of 2, by end")

    def test_waiters(self, ask, busy):
        busy.reactor.advance(2)
        peer = "192.168.1.1:54321"
        assert rows(ask.waiters()) == [("mail", 3, "1.0 s", "waiting", "2.0 s", "never", peer)]

    def test_connections(self, ask, busy):
        busy.reactor.advance(90)
        assert rows(ask.connections()) == [("192.168.1.1:54321", "1.5 min", 1, 2, 0, 0, "")]

    def test_stats(self, ask, busy):
        asked = ask.stats()
        busy.pool.step()
        shown = dict(rows(asked))
        assert shown["items"] == "5: 2 ready, 0 delayed, 3 leased, 0 unread"
        assert shown["waiting polls"] == "1"
        assert shown["pool"] == "0 of 2 threads busy, 0 calls wait"
        # Singular for one.
        assert shown["calls"].endswith("; 1 is not answered")
        assert shown["connections"] == "1; 1 was made"

    def test_stats_without_the_disk(self, ask, busy):
        asked = ask.stats()
        busy.reactor.advance(1)
        assert dict(rows(asked))["free space"] == "no answer in time"
        busy.pool.step()

    def test_commits(self, ask, busy):
        table = ask.commits()
        assert sum(row[3] for row in table.rows) == 7
        assert table.note.startswith("all 1: 7.0 rows each")

    def test_limits(self, ask, server):
        server.broker.limit_hits["items_per_add"] = 3
        server.broker.limit_hits["free_space_reserve"] = 1
        shown = {row[0]: row for row in rows(ask.limits())}
        assert shown["items_per_add"][1:3] == ("1,000", 3)
        assert shown["idle_ms"][1] == "unlimited"
        assert shown["free_space_reserve"][2] == 1

    def test_dump(self, ask, busy):
        assert "queue 'default' number=1 items=5" in ask.dump()
        assert ask.dump("leases", 1).endswith("1 of 2, oldest first")
        assert ask.dump("everything") == 'There is no part \'everything\'; there are "queues" and "leases".'

    def test_the_number_of_rows_is_limited(self, ask, server, monkeypatch):
        monkeypatch.setattr(questions, "SHOWN_MAX", 3)
        for number in range(5):
            server.broker.add(server.broker.queue(f"q{number}"), [[NewItem(b"", SpanMs(0))]], server.clock.now())
        assert len(rows(ask.queues(10**9))) == 3
        assert len(ask.dump(most=10**9).splitlines()) == 4
        assert rows(ask.queues(-1)) == []

    def test_check(self, ask, busy, monkeypatch):
        assert re.fullmatch(r"Consistent: 7 objects, checked in \d+ ms\.", ask.check())
        monkeypatch.setattr(questions, "CHECKED_MAX", 6)
        assert "check(force=True)" in ask.check()
        busy.broker.queue("default").held.clear()
        assert ask.check(force=True).startswith("NOT consistent: an item is held by no lease")
        busy.broker.polls.waiting += 1
        assert "check" in ask.check(force=True)

    def test_threads_are_those_of_the_process(self, ask):
        me = str(threading.get_native_id())
        (mine,) = [row for row in rows(ask.threads()) if row[0] == me]
        assert mine[1] == Path("/proc/self/comm").read_text().strip()
        assert "thread_states" in mine[3]
        assert all(state.cpu_seconds >= 0 for state in thread_states())


class FromThread:
    """The part of a reactor that a sampler uses."""

    def __init__(self):
        self.done = threading.Event()

    def callFromThread(self, function, *args):  # noqa: N802
        function(*args)
        self.done.set()


class TestProfile:
    def test_the_function_of_a_thread_is_found(self):
        samples = Samples()
        stop = threading.Event()

        def busy_in_here():
            stop.wait()

        thread = threading.Thread(target=busy_in_here, name="victim")
        thread.start()
        try:
            samples.take(threading.get_ident())
            samples.take(threading.get_ident())
        finally:
            stop.set()
            thread.join()
        table = samples.table()
        assert any(row[:2] == (100, 100) and row[2].startswith("victim: Condition.wait") for row in table.rows)
        assert any("busy_in_here" in where for where in samples.in_stack)
        assert not any("busy_in_here" in where for where in samples.running)

    def test_one_profile_at_a_time_and_of_limited_duration(self):
        reactor = FromThread()
        sampler = Sampler(reactor)
        for seconds in (0, 61):
            with pytest.raises(ValueError, match="it must be"):
                sampler.profile(seconds)
        profile = sampler.profile(0.05)
        with pytest.raises(ValueError, match="another"):
            sampler.profile(0.05)
        assert reactor.done.wait(10)
        (table,) = [profile.result]
        assert table.note.startswith(tuple("123456789"))
        sampler.profile(0.01)


ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[=>E])")
NEGOTIATION = re.compile(rb"\xff[\xfb-\xfe].|\xff\xfa.*?\xff\xf0", re.DOTALL)


class Typist:
    """A user of the console."""

    def __init__(self, factory):
        self.protocol = factory.buildProtocol(None)
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)

    def type(self, text):
        """Type *text*, and return the output."""
        self.transport.clear()
        self.protocol.dataReceived(text.encode().replace(b"\n", b"\r\0"))
        return self.shown()

    def shown(self):
        plain = NEGOTIATION.sub(b"", self.transport.value()).decode()
        return ESCAPES.sub("", plain).replace("\r", "")

    def leave(self):
        self.protocol.connectionLost(Failure(ConnectionDone()))


@pytest.fixture
def lines(monkeypatch):
    """Return the logged lines."""
    logged = []

    class Recorder:
        def info(self, template, /, **fields):
            logged.append(template.format(**fields))

        warn = info

    monkeypatch.setattr(prompt, "log", Recorder())
    monkeypatch.setattr(Connections, "log", Recorder())
    return logged


@pytest.fixture
def sit_down(diagnostics, lines):
    """Begin a session on a Unix socket."""
    factory = session.ConsoleFactory(diagnostics, ConsoleAccess(None))
    typists = []

    def sit_down():
        typists.append(Typist(factory))
        return typists[-1]

    yield sit_down
    for typist in typists:
        if typist.transport.connected:
            typist.leave()


class TestSession:
    def test_the_prompt_begins_with_the_commands(self, sit_down):
        shown = sit_down().shown()
        assert "queues() leases() waiters() connections() stats() threads() commits() limits() dump(part)" in shown
        assert shown.endswith("queueber> ")

    def test_a_command_shows_its_result(self, sit_down, busy):
        shown = sit_down().type("queues()\n")
        assert re.search(r"^default +2 +0 +3 +0 +0 +0 ms$", shown, re.MULTILINE)

    def test_a_late_result_does_not_disturb_the_input(self, sit_down, busy):
        typist = sit_down()
        assert "(a moment)" in typist.type("stats()\n")
        typist.type("1 + ")
        typist.transport.clear()
        busy.pool.step()
        assert re.search(r"^waiting polls +1$", typist.shown(), re.MULTILINE)
        assert typist.shown().endswith("queueber> 1 + ")
        assert "42" in typist.type("41\n")

    def test_a_result_after_the_end_of_the_session_is_dropped(self, sit_down, busy):
        typist = sit_down()
        typist.type("stats()\n")
        typist.leave()
        typist.transport.connected = False
        typist.transport.clear()
        busy.pool.step()
        assert typist.transport.value() == b""

    def test_the_end_of_input_waits_for_pending_results(self, sit_down, busy):
        typist = sit_down()
        typist.type("stats()\n\x04")
        assert not typist.transport.disconnecting
        busy.pool.step()
        assert "waiting polls" in typist.shown()
        assert typist.transport.disconnecting

    @pytest.mark.parametrize("end", ["\x04", "exit()\n", "quit()\n", "raise SystemExit\n", "import sys; sys.exit(3)\n"])
    def test_a_session_can_be_left(self, sit_down, end, diagnostics, lines):
        typist = sit_down()
        assert diagnostics.consoles.open == 1
        typist.type(end)
        assert typist.transport.disconnecting
        typist.leave()
        typist.transport.connected = False
        assert diagnostics.consoles.open == 0
        assert lines[-1] == "Console session 1 has ended"

    def test_mistakes_are_shown_and_change_nothing(self, sit_down):
        typist = sit_down()
        assert "ZeroDivisionError" in typist.type("1/0\n")
        for question, answer in (
            ("dump('x')", "There is no part 'x'"),
            ("profile(1000)", "No profile: seconds is 1000"),
        ):
            shown = typist.type(f"{question}\n")
            assert answer in shown
            assert "Traceback" not in shown
        assert "4" in typist.type("2 + 2\n")

    def test_a_wrong_argument_is_reported_in_a_line(self, sit_down):
        typist = sit_down()
        for question, answer in (
            ("queues('many')", "queues(): most is 'many'; it must be a whole number."),
            ("leases(None)", "leases(): most is None; it must be a whole number."),
            ("commits(most=2.5)", "commits(): most is 2.5; it must be a whole number."),
            ("waiters(True)", "waiters(): most is True; it must be a whole number."),
            ("connections(1, 2)", "connections(): too many positional arguments."),
            ("limits(1)", "limits(): too many positional arguments."),
            ("stats(verbose=1)", "stats(): got an unexpected keyword argument 'verbose'."),
            ("dump(5)", "dump(part): part is 5; it must be a string."),
            ("dump([])", "dump(part): part is []; it must be a string."),
            ("check(force=1)", "check(): force is 1; it must be True or False."),
            ("check(True)", "check(): too many positional arguments."),
            ("profile('long')", "profile(seconds): seconds is 'long'; it must be a number."),
            ("profile(float('nan'))", "No profile: "),
            ("help(queues)", "help(): too many positional arguments."),
        ):
            shown = typist.type(f"{question}\n")
            assert shown.startswith(f"{question}\n{answer}"), shown
            assert shown.endswith("\nqueueber> ")
            assert shown.count("\n") == 2

    def test_a_command_without_parentheses_shows_its_help(self, sit_down):
        typist = sit_down()
        assert typist.type("help\n").removeprefix("help") == typist.type("help()\n").removeprefix("help()")
        assert "queues(): List the queues with the most items, up to 100.\n" in typist.type("queues\n")
        assert "exit(): End the session, as Ctrl-D does.\n" in typist.type("exit\n")
        assert not typist.transport.disconnecting

    def test_non_ascii_characters_may_arrive_in_pieces(self, sit_down):
        typist = sit_down()
        line = 'len("z\u00fcrich \U0001f980"), "\u00fc"\r\0'.encode()
        typist.transport.clear()
        for at in range(len(line)):
            typist.protocol.dataReceived(line[at : at + 1])
        assert typist.shown() == 'len("z\u00fcrich \U0001f980"), "\u00fc"\n(8, \'\u00fc\')\nqueueber> '
        assert typist.type("\x1b[A\n").endswith("(8, '\u00fc')\nqueueber> ")
        # Cursor keys count characters: left past the quote, then the character before it is deleted.
        assert typist.type('len("\u00fc\u00fc")\x1b[D\x1b[D\x7f\n').endswith("\n1\nqueueber> ")
        assert typist.type("print('\\udcff')\n").endswith("\n\\udcff\nqueueber> ")

    def test_a_line_that_is_not_utf_8_is_not_run(self, sit_down, lines):
        typist = sit_down()
        for invalid in (b"x = 'z\xfcrich'\r\0", b"x = '\xc3'\r\0", b"x = 1 #\xc3\r\0"):
            typist.transport.clear()
            typist.protocol.dataReceived(invalid)
            assert typist.shown().endswith("\nNot run: this line is not UTF-8.\nqueueber> ")
        typist.protocol.dataReceived(b"\xfc\x03")
        assert "NameError: name 'x' is not defined" in typist.type("x\n")

    def test_the_end_of_input_ends_a_block_that_was_begun(self, sit_down):
        typist = sit_down()
        assert "\n40\n41\n" in typist.type("for n in (40, 41):\n  print(n)\n\x04")
        assert not typist.transport.disconnecting
        assert "KeyboardInterrupt" in typist.type("print(\n\x04")
        assert not typist.transport.disconnecting
        typist.type("print(\n\x04\x04")
        assert typist.transport.disconnecting

    def test_nothing_runs_after_the_end_of_the_session(self, sit_down, lines):
        typist = sit_down()
        typist.type("exit(0)\nlimits()\n")
        assert typist.transport.disconnecting
        assert [line for line in lines if "limits" in line] == []

    def test_sessions_are_logged_with_their_input(self, sit_down, lines):
        typist = sit_down()
        typist.type("limits()\n\n")
        typist.type("x" * 1_000 + "\n")
        assert lines[0] == "Console session 1 begins: 192.168.1.1:54321"
        assert lines[1] == "Console session 1: 'limits()'"
        assert len(lines[2]) < 600

    def test_the_number_of_sessions_is_limited(self, sit_down, diagnostics, lines):
        for _ in range(session.SESSIONS_MAX):
            sit_down()
        one_more = session.ConsoleFactory(diagnostics, ConsoleAccess(None)).buildProtocol(None)
        transport = StringTransport()
        one_more.makeConnection(transport)
        assert transport.disconnecting
        assert lines[-1].startswith("Console: a session is refused, because there are 10: ")

    def test_many_sessions_are_a_few_lines_and_a_count_in_the_log(self, diagnostics, lines, server):
        factory = session.ConsoleFactory(diagnostics, ConsoleAccess(None))
        for _ in range(30):
            Typist(factory).leave()
        assert len(lines) == 2
        server.reactor.advance(3)
        diagnostics.connections.log_left_out()
        assert sorted(lines[2:]) == [
            "29 lines of 192.168.1.1 were left out: Console session {number} begins: {peer}",
            "29 lines of 192.168.1.1 were left out: Console session {number} has ended",
        ]


class TestLogin:
    @pytest.fixture
    def typist(self, diagnostics, password_file, lines):
        typist = Typist(session.ConsoleFactory(diagnostics, ConsoleAccess(None, PasswordFile(password_file))))
        yield typist
        if typist.transport.connected:
            typist.leave()

    def test_the_password_opens_the_prompt(self, typist, lines, server):
        assert typist.shown() == "User: "
        assert typist.type("ada\n") == "ada\nPassword: "
        shown = typist.type(f"{SECRET}\n")
        assert shown.endswith("queueber> ")
        assert server.reactor.getDelayedCalls() == []
        assert SECRET not in "".join(lines)

    def test_a_script_can_send_the_password(self, typist, server):
        shown = typist.type(f"ada\n{SECRET}\nlen('z\u00fcrich')\n\x04\x04")
        assert "\n6\nqueueber> " in shown
        assert typist.transport.disconnecting

    @pytest.mark.parametrize("script", ["\x04", "queues()\n\x04\x04", "ada\nguess\nqueues()\n\x04\x04"])
    def test_a_script_that_ends_before_the_login_is_disconnected(self, typist, script):
        shown = typist.type(script)
        assert typist.transport.disconnecting
        assert "queueber> " not in shown

    def test_three_wrong_passwords_close_the_connection(self, typist, lines, diagnostics):
        for _ in range(3):
            assert not typist.transport.disconnecting
            typist.type("ada\n")
            assert "Wrong user or password" in typist.type("guess\n")
        assert typist.transport.disconnecting
        assert [line for line in lines if "a login failed" in line] == ["Console: a login failed: 192.168.1.1:54321"]
        assert diagnostics.consoles.open == 0

    def test_no_login_is_possible_while_others_can_read_the_file(self, typist, password_file, lines):
        password_file.chmod(0o644)
        typist.type("ada\n")
        assert "Wrong user or password" in typist.type(f"{SECRET}\n")
        assert "no login is possible" in lines[0]

    def test_a_login_has_a_time_limit(self, typist, server):
        server.reactor.advance(session.LOGIN_SECONDS)
        assert typist.transport.disconnecting

    def test_input_before_the_password_is_not_run(self, typist):
        shown = typist.type("help()\n")
        assert "Password: " in shown
        assert "queues()" not in shown
