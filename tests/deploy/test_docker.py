"""The image: its recipe is read, and its one script is run, with as much of a container round it as is to be had."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from queueber.server.config.settings import OPTIONS
from queueber.server.config.twisted_options import Options
from tests.support.processes import completed, run_command

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
TIMEOUT_SECONDS = 60

NO_INDEX = re.compile("Could not find a version|No matching distribution|Temporary failure in name|Failed to establish")
NO_CONTAINER = [
    name for name in ("unshare", "nsenter", "setpriv", "mount") if os.geteuid() != 0 or shutil.which(name) is None
]


def instructions():
    """Each instruction of the Dockerfile and what follows it, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (DOCKER / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def last(instruction):
    return [rest for name, rest in instructions() if name == instruction][-1]


def environment():
    return dict(re.findall(r"(\w+)=(\S+)", last("ENV")))


def healthcheck():
    return json.loads(last("HEALTHCHECK").partition("CMD ")[2])


def test_the_server_is_unprivileged_and_gets_signals_itself():
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", last("USER"))
    env, *blocked, twist, plugin = json.loads(last("ENTRYPOINT"))
    # It replaces itself by the server, which then is number 1.
    assert (env, twist, plugin) == ("/usr/bin/env", "/opt/queueber/bin/twist", "queueber")
    assert f"--block-signal={last('STOPSIGNAL').removeprefix('SIG')}" in blocked
    assert last("STOPSIGNAL") == "SIGTERM"


def test_both_stages_have_the_same_interpreter():
    bases = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    assert len(bases) == 2
    assert len(set(bases)) == 1


def test_what_is_copied_is_there():
    copied = [path for path in sources() if not (ROOT / path).exists()]
    assert not copied


def test_its_environment_is_options_of_the_server():
    variables = {name for name in environment() if name.startswith("QUEUEBER_")}
    assert variables <= {option.variable for option in OPTIONS}
    assert environment()["QUEUEBER_DATA_DIR"] == last("VOLUME")
    assert "INSECURE" not in last("ENV")


def sources():
    """The files that the build may use, relative to the repository."""
    copied = [rest.split() for name, rest in instructions() if name == "COPY" and not rest.startswith("--from")]
    return [path for words in copied for path in words[:-1]]


@pytest.fixture(scope="module")
def built():
    """The result of the image's script; the server's user may enter it."""
    with tempfile.TemporaryDirectory(prefix="queueber-image-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for path in sources():
            to = folder / "src" / path
            to.parent.mkdir(parents=True, exist_ok=True)
            ignored = shutil.ignore_patterns("__pycache__", "dropin.cache")
            (shutil.copytree if (ROOT / path).is_dir() else shutil.copy)(
                ROOT / path, to, **({"ignore": ignored} if (ROOT / path).is_dir() else {})
            )
        done = completed(
            [folder / "src" / "deploy/docker/build.sh", folder / "src", folder / "opt"],
            env={**os.environ, "PYTHON": interpreter()},
            timeout=600,
        )
        if NO_INDEX.search(done.stderr):
            pytest.skip("pip reaches no package index")
        assert done.returncode == 0, done.stdout + done.stderr
        yield folder / "opt"


MOST_MEGABYTES = 120


@pytest.mark.slow
def test_it_stays_small(built):
    """About 100 MB, as the Dockerfile says: libraries of others, most of them compiled."""
    files = [path for path in built.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < MOST_MEGABYTES * 1_000_000
    assert not [path for path in files if "pip" in path.parts or "setuptools" in path.parts]


def interpreter():
    """The Python that everything here is made from, not that of a virtual environment."""
    return str(Path(sys.base_prefix, "bin", "python3").resolve())


def hidden():
    """The directory on the way to the interpreter that only its owner may enter, if there is one."""
    ways = [way for way in reversed(Path(interpreter()).parents) if not way.stat().st_mode & 0o001]
    return str(ways[0]) if ways else ""


class Container:
    """The image, as its user, with nothing to write to but *data*: its entry point with *arguments*, or *command*."""

    def __init__(self, built, data, *arguments, command=None, tls=None, **environment):
        self._built, self._data, self._tls = built, data, tls or data
        self._more = environment or {"QUEUEBER_LISTEN": "127.0.0.1:0"}
        self.lines = []
        self._outer = subprocess.Popen(
            [
                *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
                *(Path(__file__).with_name("container.sh"), sys.base_prefix, hidden(), data),
                *self._here([*(command or json.loads(last("ENTRYPOINT"))), *arguments]),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=data,
            env=self._environment,
        )
        self._reader = threading.Thread(target=lambda: self.lines.extend(self._outer.stdout), daemon=True)
        self._reader.start()

    def _here(self, command):
        """*command* with the places that things have here."""
        return [
            word.replace("/opt/queueber", str(self._built))
            .replace("/var/lib/queueber", str(self._data))
            .replace("/etc/queueber", str(self._tls))
            for word in command
        ]

    @property
    def _environment(self):
        own = {
            name: self._here([value.replace("$PATH", os.environ["PATH"])])[0] for name, value in environment().items()
        }
        return {**own, **self._more}

    @property
    def pid(self):
        """The server's, seen from here."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not (children := Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()):
            assert self._outer.poll() is None, self.lines
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return children[0]

    def run(self, command):
        """Run *command* where the server runs, as its user; what it said."""
        user = ("setpriv", "--reuid", "10001", "--regid", "10001", "--clear-groups", "--no-new-privs")
        return completed(
            ["nsenter", "--target", self.pid, "--mount", "--pid", *user, *self._here(command)], env=self._environment
        )

    def until_healthy(self):
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while (done := self.run(healthcheck())).returncode:
            assert self._outer.poll() is None, self.lines
            assert time.monotonic() < deadline, (done.stderr, self.lines)
        return done.stdout

    def stop(self):
        os.kill(int(self.pid), signal.SIGTERM)
        return self.end()

    def end(self):
        status = self._outer.wait(TIMEOUT_SECONDS)
        self._reader.join(TIMEOUT_SECONDS)
        self._outer.stdout.close()
        return status

    def kill(self):
        if self._outer.poll() is None:
            self._outer.kill()
            self.end()


@pytest.fixture
def container(built):
    if NO_CONTAINER:
        pytest.skip(f"needs root and {', '.join(NO_CONTAINER)}")
    data = built.parent / "data"
    data.mkdir(mode=0o700)
    os.chown(data, 10001, 10001)
    running = []

    def start(*arguments, **more):
        running.append(Container(built, more.pop("data", data), *arguments, **more))
        return running[-1]

    yield start
    for each in running:
        each.kill()
    shutil.rmtree(data)


@pytest.mark.slow
def test_the_plugin_cache_is_there_and_what_is_not_needed_is_not(built):
    (plugins,) = built.glob("lib/python*/site-packages/twisted/plugins")
    assert b"queueber" in (plugins / "dropin.cache").read_bytes()
    packages = {path.name.partition("-")[0].lower() for path in plugins.parents[1].iterdir()}
    assert {"queueber", "prometheus_client", "pyopenssl"} <= packages
    assert not packages & {"pip", "setuptools", "wheel", "pytest"}


@pytest.mark.slow
def test_only_its_owner_may_write_to_what_was_built(built):
    loose = [path for path in built.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022]
    closed = [path for path in built.rglob("*") if not path.is_symlink() and not path.stat().st_mode & 0o004]
    assert (loose, closed) == ([], [])


@pytest.mark.slow
def test_it_serves_from_a_file_system_that_cannot_be_written_to(container):
    server = container()
    assert server.until_healthy().startswith("serving")
    refused = server.run(["touch", "/opt/queueber/x"])
    assert "Read-only file system" in refused.stderr
    assert "10001" in server.run(["stat", "--format=%u", "/proc/1"]).stdout
    control = "unix:path=/var/lib/queueber/control.sock"
    assert server.run(["/opt/queueber/bin/queueber", f"--addr={control}", "add", "kept"]).returncode == 0
    assert server.stop() == 0
    said = [json.loads(line)["message"] for line in server.lines]
    assert "Stopped; everything is on disk (SIGTERM)" in said
    assert not [line for line in server.lines if "Traceback" in line or "Unable to write to plugin cache" in line]

    again = container()
    again.until_healthy()
    polled = again.run(["/opt/queueber/bin/queueber", f"--addr={control}", "poll", "--no-wait"])
    assert "kept" in polled.stdout
    again.stop()


def documented():
    """The commands of the section about containers, each in words."""
    section = (ROOT / "docs" / "operating.md").read_text().partition("## In a container\n")[2].partition("\n## ")[0]
    text = "\n".join(re.findall(r"^```console\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    return [shlex.split(line.removeprefix("$ ")) for line in text.splitlines() if line.startswith("$ ")]


def options(words):
    """The options of ``docker run`` by name, the image, and its arguments."""
    flags = {"--rm", "--detach", "--read-only"}
    found, words = {}, words[2:]
    while words[0].startswith("--"):
        name = words.pop(0)
        found.setdefault(name, []).append(True if name in flags else words.pop(0))
    return found, words


def test_three_commands_build_the_image_make_a_certificate_and_serve_beyond_the_container():
    build, openssl, run = documented()[:3]
    assert build[:2] == ["docker", "build"]
    assert (ROOT / build[build.index("--file") + 1]).samefile(DOCKER / "Dockerfile")
    tag = build[build.index("--tag") + 1]
    (made, (first, *_)), (given, (second, *arguments)) = options(openssl), options(run)
    assert (first, second) == (tag, tag)
    assert made["--entrypoint"] == ["openssl"]

    volumes = dict(volume.split(":", 1) for volume in [*made["--volume"], *given["--volume"]])
    prepared = re.search(r"install --directory --mode 0700 --owner (\d+) --group \1 (.*)", last("RUN"))
    assert prepared[1] == last("USER").partition(":")[0]
    assert {path.removesuffix(":ro") for path in volumes.values()} == set(prepared[2].split())
    assert last("VOLUME") in volumes.values()

    outside, inside = given["--publish"][0].split(":")
    assert outside == inside == last("EXPOSE")
    service = Options(environment=environment())
    service.parseOptions(arguments)
    assert [listen.text for listen in service.settings.listen_tls] == [f"0.0.0.0:{inside}"]
    assert service.settings.listen == ()
    assert service.settings.tls.certificate.parent == Path(made["--volume"][0].split(":")[1])
    assert int(given["--stop-timeout"][0]) > 2 * service.settings.drain_seconds


def test_what_is_said_about_plaintext_serves_beyond_the_container_too():
    section = (ROOT / "docs" / "operating.md").read_text()
    (words,) = re.findall(r"`(--env QUEUEBER_LISTEN=[^`]*)`", section)
    given, _ = options(["docker", "run", *shlex.split(words), "queueber"])
    service = Options(environment={**environment(), **dict(each.split("=") for each in given["--env"])})
    service.parseOptions([])
    (listen,) = service.settings.listen
    assert listen.text == f"0.0.0.0:{given['--publish'][0].rpartition(':')[2]}"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here to make a certificate")
def test_the_documented_commands_serve_with_tls_from_outside(container, built, tmp_path):
    """The outside is an address of this machine to which a server does not listen by default."""
    _, openssl, run, copy, use = documented()
    tls = built.parent / "tls"
    tls.mkdir(mode=0o700)
    os.chown(tls, 10001, 10001)
    try:
        making = container(command=["openssl", *options(openssl)[1][1:]], data=tls)
        assert making.end() == 0, making.lines
        assert stat.S_IMODE((tls / "server.key").stat().st_mode) == 0o600

        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        arguments = [word.replace(":9443", f":{port}") for word in options(run)[1][1:]]
        server = container(*arguments, tls=tls, QUEUEBER_LOG_LEVEL="info")
        server.until_healthy()

        assert copy[:2] == ["docker", "cp"]
        shutil.copy(tls / Path(copy[2]).name, tmp_path)
        program, *words = [word.replace(":9443", f":{port}").replace("localhost", "127.0.0.2") for word in use]
        done = run_command("--tls-server-name=localhost", *words, cwd=tmp_path)
        assert (program, done.returncode, done.stderr) == ("queueber", 0, "")
        assert server.stop() == 0
    finally:
        shutil.rmtree(tls)
