"""Writing the log to slow, full and closed destinations, and its rotation."""

import json
import os
import pty
import sys
import threading

import pytest
from attrs import define, field
from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile

from queueber.server.app import log_output
from queueber.server.app.log_output import Descriptor, LogOutput, NotRotated, RotatedFile
from queueber.server.app.logs import FORMATS, Log, log_failed_start, open_log
from queueber.server.app.plugin import Options


@define(eq=False)
class Reader:
    """A destination that blocks until the test lets it write."""

    encoding: str = "utf-8"
    hung_up: bool = False
    taken: list = field(factory=list)
    error: OSError | None = None
    goes_on: threading.Event = field(factory=threading.Event)

    def write(self, data):
        self.goes_on.wait(120)
        if self.error is not None:
            raise self.error
        self.taken.append(data)


def described(lines, why):
    return f"{lines} missing: {why}\n"


@pytest.fixture
def reader():
    return Reader()


@pytest.fixture
def output(reader):
    return LogOutput(reader, described)


def test_a_slow_reader_does_not_block_and_dropped_lines_are_counted(output, reader, monkeypatch):
    monkeypatch.setattr(log_output, "WAITING_BYTES_MAX", 100)
    output.start()
    for _ in range(25):
        output.write("123456789\n")
    assert not output.drain(0)

    reader.goes_on.set()
    assert output.drain(30)
    output.write("more\n")
    assert output.drain(30)

    lines = b"".join(reader.taken).decode().splitlines()
    assert lines[:10] == ["123456789"] * 10
    missing = [line for line in lines if "missing" in line]
    assert sum(int(line.split()[0]) for line in missing) == 15
    assert "more" in lines


def test_dropped_lines_are_reported_without_a_further_line(output, reader, monkeypatch):
    monkeypatch.setattr(log_output, "WAITING_BYTES_MAX", 10)
    written = threading.Event()
    monkeypatch.setattr(output, "_describe", lambda lines, why: written.set() or described(lines, why))
    output.start()
    output.write("123456789\n")
    output.write("123456789\n")

    reader.goes_on.set()

    assert written.wait(120)


def test_a_call_that_fails_does_not_end_the_log(output, reader):
    reader.goes_on.set()
    output.start()
    output.call(lambda: {}["nothing"])
    output.write("more\n")

    assert output.drain(30)
    assert reader.taken == [b"more\n"]


def test_lines_that_cannot_be_written_are_counted_in_their_place(output, reader):
    reader.goes_on.set()
    reader.error = OSError(28, "No space left on device")
    output.write("one\n")
    output.write("two\n")
    reader.error = None
    output.write("three\n")

    assert reader.taken == [b"2 missing: No space left on device\n", b"three\n"]


def test_characters_outside_of_the_encoding_are_escaped(output, reader):
    reader.goes_on.set()
    reader.encoding = "ascii"
    output.write("Zoë \udcff\n")

    assert reader.taken == [b"Zo\\xeb \\udcff\n"]


def test_a_closed_terminal_is_noticed_and_a_pipe_is_not_a_terminal():
    master, slave = pty.openpty()
    terminal = Descriptor(slave, "standard output")
    assert not terminal.hung_up
    os.close(master)
    assert terminal.hung_up
    os.close(slave)

    reading, writing = os.pipe()
    os.close(reading)
    assert not Descriptor(writing, "standard output").hung_up
    os.close(writing)


def test_a_descriptor_that_another_process_made_non_blocking_still_gets_every_byte():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data = bytes(range(256)) * 1_000
    found = []

    def read():
        while sum(map(len, found)) < len(data):
            found.append(os.read(reading, 10_000))

    thread = threading.Thread(target=read)
    thread.start()
    Descriptor(writing, "standard output").write(data)
    thread.join(30)

    assert b"".join(found) == data
    os.close(reading)
    os.close(writing)


class TestRotation:
    @pytest.fixture
    def log_file(self, tmp_path):
        made = LogFile.fromFullPath(str(tmp_path / "q.log"))
        yield made
        made.close()

    @pytest.fixture
    def file(self, log_file):
        made = RotatedFile(log_file)
        made.write(b"old\n")
        return made

    def test_the_old_file_is_kept(self, file, tmp_path):
        file.rotate()
        file.write(b"new\n")

        assert (tmp_path / "q.log.1").read_bytes() == b"old\n"
        assert (tmp_path / "q.log").read_bytes() == b"new\n"

    def test_a_moved_file_is_opened_again(self, file, tmp_path):
        (tmp_path / "q.log").rename(tmp_path / "elsewhere")
        assert "was moved" in file.rotate()
        file.write(b"new\n")

        assert sorted(each.name for each in tmp_path.iterdir()) == ["elsewhere", "q.log"]
        assert (tmp_path / "q.log").read_bytes() == b"new\n"

    def test_an_inaccessible_path_leaves_the_open_file(self, file, log_file, tmp_path):
        log_file.path = str(tmp_path / "jail" / "q.log")
        with pytest.raises(NotRotated, match="No such file or directory"):
            file.rotate()
        file.write(b"new\n")

        assert (tmp_path / "q.log").read_bytes() == b"old\nnew\n"

    def test_a_rotation_that_failed_half_way_does_not_end_the_log(self, file, tmp_path, monkeypatch):
        """Twisted closes the file before it renames it."""

        def fail(*_):
            raise OSError("no room")

        with monkeypatch.context() as patched:
            patched.setattr(os, "rename", fail)
            with pytest.raises(NotRotated, match="no room"):
                file.rotate()
        file.write(b"new\n")

        assert (tmp_path / "q.log").read_bytes() == b"old\nnew\n"

    def test_a_path_below_a_new_root_is_found_there(self, file, log_file, tmp_path):
        file.enter_chroot(str(tmp_path))
        assert log_file.path == "/q.log"


class TestLog:
    """Events through Twisted's publisher, as in a server."""

    @pytest.fixture
    def publish(self, reader):
        reader.goes_on.set()
        made = Log.to(reader, FORMATS["text"])
        made.set_level("warn")
        return Logger("q", observer=LogPublisher(made))

    def test_the_last_line_is_logged_at_any_level(self, publish, reader):
        publish.info("Serving")
        publish.info("Stopped; everything is on disk", final=True)
        publish.info("Main loop terminated.")
        publish.warn("Port closed")

        assert [line.split("] ")[1] for line in b"".join(reader.taken).decode().splitlines()] == [
            "Stopped; everything is on disk"
        ]

    def test_a_path_with_a_newline_stays_on_one_line(self, reader):
        reader.goes_on.set()
        log = Logger("queueber.q", observer=Log.to(reader, FORMATS["text"]))
        log.info("Data in {path}: {items} items", path="/q\n\x1b[31m/\xfc", items=1)
        log.failure("Cannot start", Failure(ValueError("not ours")))

        lines = b"".join(reader.taken).decode().splitlines()
        assert lines[0].endswith("Data in /q\\n\\x1b[31m/\xfc: 1 items")
        assert lines[1].endswith("Cannot start")
        assert "ValueError: not ours" in "".join(lines[2:])

    def test_an_error_after_the_last_line_is_logged(self, publish, reader):
        publish.info("Stopped", final=True)
        publish.critical("Stopping failed")

        assert b"Stopping failed" in reader.taken[-1]

    def test_missing_lines_are_an_event_in_json_as_well(self, reader):
        reader.encoding = "ascii"
        log = Log.to(reader, FORMATS["json"])
        assert reader.encoding == "utf-8"

        reader.goes_on.set()
        reader.error = OSError(28, "no room")
        for _ in range(1_234):
            log.output.write("{}\n")
        reader.error = None
        log.output.write("{}\n")
        line = json.loads(reader.taken[0])

        assert (line["level"], line["message"]) == ("warn", "1,234 lines of the log are missing here: no room")


class TestOfTwistd:
    def test_the_background_writes_twistd_log(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        log = open_log({"nodaemon": False, "logfile": None}, "auto")

        log.output.write("a line\n")
        assert (tmp_path / "twistd.log").read_text() == "a line\n"
        log.output.destination.close()

    def test_the_background_has_no_standard_output(self):
        with pytest.raises(OSError, match="--logfile -: a server in the background has no standard output"):
            open_log({"nodaemon": False, "logfile": "-"}, "auto")

    def test_a_file_that_cannot_be_opened_is_reported(self):
        with pytest.raises(OSError, match=r"--logfile /nowhere/q\.log: No such file or directory"):
            open_log({"nodaemon": True, "logfile": "/nowhere/q.log"}, "auto")


class TestRefusal:
    """A start that fails before the log is open."""

    def test_the_reason_is_the_last_line_of_the_log_file(self, tmp_path):
        path = tmp_path / "q.log"
        path.write_text("Stopped\n")
        log_failed_start({"logfile": str(path)}, ["--workers is '0'", "--listen: no"])

        assert [line.partition("Cannot start: ")[2] for line in path.read_text().splitlines()[1:]] == [
            "--workers is '0'",
            "--listen: no",
        ]

    def test_a_log_file_that_cannot_be_opened_is_tried_once(self, monkeypatch, capsys):
        tried = []

        def fail(path):
            tried.append(path)
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(LogFile, "fromFullPath", fail)
        options = Options(environment={})
        options.parent = {"nodaemon": True, "logfile": "/q.log", "pidfile": "/q.pid"}
        options.parseOptions([])
        with pytest.raises(SystemExit) as ended:
            options.open_log()

        assert (ended.value.code, tried) == (74, ["/q.log"])
        assert capsys.readouterr().err == "queueber: --logfile /q.log: Read-only file system\n"

    @pytest.mark.parametrize("options", [{"logfile": None}, {"logfile": "-"}, {"logFile": sys.stderr}])
    def test_no_log_file_is_created(self, options, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        log_failed_start(options, ["--workers is '0'"])

        assert list(tmp_path.iterdir()) == []
