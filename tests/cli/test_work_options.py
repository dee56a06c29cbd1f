"""The options of `queueber work`, and one sentence for each mistake."""

import sys

import click
import pytest
from click.testing import CliRunner

from queueber.cli.__main__ import queueber
from queueber.cli.server_options import ServerSelection
from queueber.cli.work_options import Limit, limit_of, url_of
from queueber.cli.work_worker import WorkOptions, make_worker
from queueber.client_core.url import target_of
from queueber.units import MIB

MODULE = """
from pathlib import Path
from queueber.tasks import Tasks
from queueber.worker import Worker

def handle(item):
    pass

async def handle_soon(item):
    pass

def handle_pair(item, context):
    pass

number = 5
worker = Worker("queueber://127.0.0.1:1/mail", handle)
app = Tasks("queueber://127.0.0.1:1/of-the-app")

@app.task(queue="high")
def double(number: int):
    pass

@app.task
def other():
    pass
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with the module `shop_of_options`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "shop_of_options.py").write_text(MODULE)
    yield tmp_path
    sys.modules.pop("shop_of_options", None)


def mistake(*arguments, environment=None):
    """Return the text of the error, which is one line."""
    done = CliRunner(env=environment).invoke(queueber, ["work", *arguments])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("queueber: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("queueber: ").rstrip().replace("shop_of_options", "shop")


SHOP = "shop_of_options"
NOTHING = "Give MODULE:OBJECT, or a command after --."


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([f"{SHOP}:number"], "shop:number is of the type int; it must be a Tasks, a Worker, or a function"),
        ([f"{SHOP}:Path"], "shop:Path is a class, Path; it must be a Tasks, a Worker, or a function"),
        ([f"{SHOP}:double"], "shop:double is a single task; give the Tasks app that has it."),
        ([f"{SHOP}:missing"], "the module shop has no missing; it has worker, app"),
        ([f"{SHOP}:handle"], "Missing option '--queue': a function or a command has no queue of its own."),
        (["--", "true"], "Missing option '--queue': a function or a command has no queue of its own."),
        (
            [f"{SHOP}:worker", "--queue", "x", "--prefetch", "3"],
            "shop:worker is a Worker, which has settings of its own: --queue, --prefetch cannot be given.",
        ),
        (
            [f"{SHOP}:app", "--queue", "mail"],
            "shop:app has no tasks in the queue 'mail'; it has some in high, of-the-app.",
        ),
        (["nothing:app"], "there is no module nothing, neither in "),
        (["nothing"], "'nothing' is not MODULE:OBJECT, as in shop.tasks:app; for the object app it is nothing:app."),
        ([], NOTHING),
        (["--"], NOTHING),
        ([f"{SHOP}:handle", "--", "true"], "Give shop:handle or a command after --, not both."),
        (["--", "no-such-command-here"], "There is no command 'no-such-command-here' that can be run."),
        ([f"{SHOP}:handle", "--defer", "3"], "--defer and --discard-output are for a command after --."),
        ([f"{SHOP}:handle", "--recycle-after", "none"], "'none' is neither a number of items"),
        ([f"{SHOP}:handle", "--url", "queueber://a", "--addr", "b:1"], "--url contains the address and the TLS"),
        ([f"{SHOP}:handle", "--queue", "x", "--url", "http://a"], "the scheme of the URL is 'http'"),
        ([f"{SHOP}:handle", "--queue", "x", "--concurrency", "100001"], "concurrency is 100001; it must be a whole"),
        ([f"{SHOP}:handle", "--queue", "x", "--queue", "x"], "queues has 'x' twice"),
        ([f"{SHOP}:handle_pair", "--queue", "x"], "handler is handle_pair(item, context); it must take one argument"),
        ([f"{SHOP}:handle", "--queue", "x", "--http-port", "70000"], "Invalid value for '--http-port'"),
        ([f"{SHOP}:handle", "--queue", "x", "--http-host", "::"], "--http-host needs --http-port."),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value) or "nothing",
)
def test_a_mistake_is_one_sentence(folder, arguments, text):
    assert mistake(*arguments).replace("Invalid value for '--recycle-after': ", "").startswith(text)


def test_the_queue_of_the_environment_counts(folder):
    assert "is a Worker" in mistake(f"{SHOP}:worker", environment={"QUEUEBER_QUEUE": "x"})


@pytest.mark.parametrize("option", ["--url", "--addr"])
def test_a_queue_in_the_url_is_no_choice_among_those_of_an_app(folder, option, monkeypatch):
    seen = []
    monkeypatch.setattr("queueber.cli.work_worker.run_worker", lambda options, *_: seen.append(options))
    done = CliRunner().invoke(queueber, ["work", f"{SHOP}:app", option, "queueber://127.0.0.1:1/images"])
    assert (done.exit_code, done.output) == (0, "")
    done = CliRunner().invoke(queueber, ["work", f"{SHOP}:app", option, "queueber://a/images", "--queue", "high"])
    assert (done.exit_code, done.output) == (0, "")
    assert [each.queues for each in seen] == [(), ("high",)]


def made(target, *queues, url="127.0.0.1:1", **more):
    return make_worker(WorkOptions(target=f"{SHOP}:{target}", url=url, queues=queues, **more))[0]


def test_the_queues_of_a_worker(folder):
    assert made("handle", "mail").queues == "mail"
    assert made("handle_soon", "mail", "images").queues == "mail, images"
    assert made("app").queues == "high, of-the-app"
    assert made("app", "high").queues == "high"
    assert made("app", "of-the-app", "high", settings={"strict": True}).queues == "of-the-app, high"
    assert made("worker").queues == "mail"
    assert made("handle", url="queueber://127.0.0.1:1/a%20b").queues == "a b"
    assert made("handle", "mail", url="queueber://127.0.0.1:1/images").queues == "mail"
    assert made("app", url="queueber://127.0.0.1:1/images").queues == "high, of-the-app"


def test_the_page_may_be_for_other_machines(folder):
    worker = made("handle", "mail", settings={"http_port": 0, "http_host": "0.0.0.0"})
    worker.show_health()
    assert worker.http_address[0] == "0.0.0.0"
    worker.stop()
    worker.run()
    assert worker.http_address is None


def test_a_server_that_is_named_takes_the_place_of_that_of_an_app(folder):
    made("app")
    app = sys.modules[SHOP].app
    assert app.url == "queueber://127.0.0.1:1/of-the-app"
    made("app", url_given=True)
    assert app.url == "127.0.0.1:1"


def selection(**more):
    return ServerSelection(run=None, **{"address": "127.0.0.1:9090", **more})


def test_the_server():
    assert url_of(selection(), None) == ("127.0.0.1:9090", False)
    assert url_of(selection(address="unix:/run/q"), None) == ("unix:/run/q", True)
    assert url_of(selection(), "queueber://a/b") == ("queueber://a/b", True)
    with pytest.raises(click.UsageError):
        url_of(selection(tls_wanted=True), "queueber://a/b")
    with pytest.raises(click.UsageError):
        url_of(selection(address="unix:/run/q", tls_wanted=True), None)


@pytest.mark.parametrize("address", ["example.org:1", "[::1]:2"])
def test_a_server_with_tls(address):
    url, given = url_of(selection(address=address, tls_ca="/a b&c/ca.pem", tls_server_name="x"), None)
    target = target_of(url)
    assert given
    assert (target.options.tls.ca, target.options.tls.server_name) == ("/a b&c/ca.pem", "x")
    assert target.address == target_of(address).address


def test_the_work_after_which_a_process_is_replaced():
    assert limit_of(None, None, ("10_000", "0.5 GiB")) == Limit(items=10_000, memory=512 * MIB)
    assert limit_of(None, None, ()) == Limit()
    for values in (("0",), ("x",), ("1.5",), ("5", "6"), ("1GiB", "2GiB"), ("0MiB",)):
        with pytest.raises(click.BadParameter):
            limit_of(None, None, values)
    limit = Limit(items=1_000, memory=512 * MIB)
    assert limit.reached(999, 511 * MIB) == ""
    assert limit.reached(1_003, 0) == "1,003 items"
    assert limit.reached(1, 600 * MIB) == "600 MiB of memory"
    assert limit.reached(0, 600 * MIB) == ""
    assert Limit().reached(10**9, 10**12) == ""


def test_the_ports_of_all_processes_are_below_the_limit(folder):
    given = [f"{SHOP}:handle", "--queue", "x", "--http-port", "65535", "--processes"]
    assert mistake(*given, "2") == "--http-port 65535 with 2 processes needs ports above 65535."
