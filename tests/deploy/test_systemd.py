"""The systemd units: systemd accepts them, and a server works under their restrictions."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from queueber.limits import DEFAULTS
from queueber.server.app.fd_limit import STORE_FILES
from queueber.server.config.settings import SERVICE_OPTIONS
from tests.process.certificates import Authority
from tests.support.processes import completed, run_command

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy" / "systemd"
SERVICE = UNITS / "queueber.service"
SOCKET = UNITS / "queueber.socket"
EXPOSURE_MOST = 15  # tenths

TIMEOUT_SECONDS = 60

with_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")


def settings_of(unit):
    """The settings of *unit*; the last value of a setting that occurs more than once."""
    return dict(re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE))


def analyze(*arguments):
    return completed(["systemd-analyze", *arguments])


@with_systemd
@pytest.mark.slow
def test_systemd_finds_nothing_wrong(tmp_path):
    for unit in (SERVICE, SOCKET):
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/queueber/bin/twist", shutil.which("true")))
    done = analyze("verify", str(tmp_path / SERVICE.name), str(tmp_path / SOCKET.name))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@with_systemd
@pytest.mark.slow
def test_the_service_is_confined():
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE_MOST}", str(SERVICE))
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_its_figures_are_in_step_with_the_server_s():
    service = settings_of(SERVICE)
    assert int(service["LimitNOFILE"]) >= DEFAULTS.connections + STORE_FILES
    (drain,) = [option.default for option in SERVICE_OPTIONS if option.name == "drain-seconds"]
    assert int(service["TimeoutStopSec"]) > 2 * drain
    assert {os.EX_USAGE, os.EX_CONFIG} == set(map(int, service["RestartPreventExitStatus"].split()))


def test_nothing_that_breaks_the_server_is_taken_away():
    """The boot's id, by which time goes on over a restart, lies where this would hide it."""
    assert settings_of(SERVICE).get("ProcSubset", "all") == "all"


def test_there_is_a_place_for_backups_next_to_the_data():
    """On the same file system, where a backup shares files, and not in what it is a backup of."""
    data, backups = settings_of(SERVICE)["StateDirectory"].split()
    assert settings_of(SERVICE)["ProtectSystem"] == "strict"
    assert not Path(backups).is_relative_to(data)
    for text in ("deploy/queueber.toml", "docs/operating.md", "docs/data-care.md"):
        assert f"/var/lib/{backups}/" in (ROOT / text).read_text()


def test_the_socket_is_the_one_that_the_example_names():
    example = (ROOT / "deploy" / "queueber.toml").read_text()
    assert f'"systemd:domain=UNIX:name={settings_of(SOCKET)["FileDescriptorName"]}"' in example
    assert settings_of(SOCKET)["SocketMode"] == "0660"


def denied():
    """The system calls that the unit forbids."""

    def known(*sets):
        lines = analyze("syscall-filter", *sets).stdout.splitlines()
        words = [line.strip() for line in lines]
        return {word for word in words if re.fullmatch(r"[a-z_0-9]+", word)}, [w for w in words if w.startswith("@")]

    def calls(*names):
        found, seen, rest = set(), set(), list(names)
        while rest:
            name = rest.pop()
            if not name.startswith("@"):
                found.add(name)
            elif name not in seen:
                seen.add(name)
                here, further = known(name)
                found |= here
                rest += further
        return found

    first, second = re.findall(r"^SystemCallFilter=(.*)$", SERVICE.read_text(), re.MULTILINE)
    sets = re.findall(r"^@\S+", analyze("syscall-filter").stdout, re.MULTILINE)
    everything = calls(*[each for each in sets if each != "@known"])
    return (everything - calls(*first.split())) | calls(*second.removeprefix("~").split())


@pytest.fixture
def listening(tmp_path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "q.sock"))
        made.listen()
        yield made


def health(*arguments):
    done = run_command(*arguments, "health")
    return done.returncode, done.stdout + done.stderr


@with_systemd
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace here to refuse system calls with")
def test_a_server_works_under_what_the_unit_takes_away(tmp_path, listening):
    """With its own command line, the socket of the socket unit, and TLS at both ends."""
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.sign("server", alternative="DNS:localhost")
    shown, shown_key = authority.sign("client", alternative="DNS:client")
    config = tmp_path / "queueber.toml"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config.write_text(
        f"""
        data-dir = "{tmp_path}/data"
        listen = ["systemd:domain=UNIX:name=queueber"]
        listen-tls = ["127.0.0.1:{port}"]
        tls-certificate = "{certificate}"
        tls-key = "{key}"
        tls-client-ca = "{authority.pem}"
        tls-client-name = ["client"]
        log-format = "text"
        """
    )
    twist, *arguments = shlex.split(
        settings_of(SERVICE)["ExecStart"].replace("/etc/queueber/queueber.toml", str(config))
    )
    assert Path(twist).name == "twist"
    refused = ",".join(f"?{name}" for name in sorted(denied()))
    assert "?setpriority" in refused
    with subprocess.Popen(
        [
            # As a grandchild, so that the server itself is our child.
            *(
                "strace",
                "--daemonize",
                "--follow-forks",
                "--seccomp-bpf",
                "--quiet=all",
                f"--output={tmp_path}/refused",
            ),
            *("-e", f"trace={refused}", "-e", f"inject={refused}:error=EPERM"),
            *(sys.executable, Path(__file__).with_name("confined.py"), SERVICE, str(listening.fileno())),
            *(sys.executable, "-m", "twisted", *arguments),
        ],
        pass_fds=[listening.fileno()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        secured = (f"--tls-ca={authority.pem}", f"--tls-certificate={shown}", f"--tls-key={shown_key}")
        try:
            # It is listened on already: early clients wait.
            first = health(f"--addr=unix:path={tmp_path}/q.sock")
            second = health(f"--addr=127.0.0.1:{port}", *secured, "--tls-server-name=localhost")
        finally:
            server.terminate()
            try:
                said, _ = server.communicate(timeout=TIMEOUT_SECONDS / 2)
            except subprocess.TimeoutExpired:
                server.kill()
                raise
    assert (first[0], second[0]) == (0, 0), (first, second, said)
    assert "Stopped; everything is on disk" in said
    assert "Traceback" not in said
