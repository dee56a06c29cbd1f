"""Run every program of docs/testing.md, and compare its tables with the kit."""

import re
from pathlib import Path

import pytest

from queueber.testing import TestServer, pytest_asyncio_fixtures, pytest_plugin, pytest_twisted_fixtures
from tests.testing.test_plugin import INI, INSTALLED, PLUGIN, run

GUIDE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
BLOCKS = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
FILES = dict(BLOCKS)


def test_every_block_is_a_program():
    assert len(FILES) == len(BLOCKS) == GUIDE.count("```python")
    assert GUIDE.count("```") == 2 * len(BLOCKS)


def test_every_method_has_its_row():
    _, _, table = GUIDE.partition("| `TestServer` | Does |")
    rows = [
        name for cells in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", cells)
    ]
    assert sorted(rows) == sorted(name for name in dir(TestServer) if not name.startswith("_"))


def test_every_fixture_has_its_row():
    modules = pytest_plugin, pytest_asyncio_fixtures, pytest_twisted_fixtures
    found = {name for module in modules for name in vars(module) if name.startswith("queueber_")}
    assert set(re.findall(r"^\| `(queueber_\w+)` \|", GUIDE, re.MULTILINE)) == found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "without"),
    [
        (["test_mailer.py", "test_shop.py", "test_faults.py"], ["twisted", "asyncio"]),
        (["test_on_asyncio.py"], ["twisted"]),
        (["test_on_twisted.py"], ["asyncio"]),
    ],
)
def test_the_tests_pass(tmp_path, names, without):
    plugin = [] if INSTALLED else ["-p", PLUGIN]
    disabled = [option for each in without for option in ("-p", f"no:{each}")]
    ini = INI if "asyncio" in without else f"{INI}asyncio_default_fixture_loop_scope = function\n"
    run(tmp_path, ["pytest", "-q", *plugin, *disabled, *names], ini=ini, files=FILES)


@pytest.mark.slow
def test_the_tests_for_trial_pass(tmp_path):
    assert "PASSED (successes=1)" in run(tmp_path, ["twisted.trial", "test_on_trial"], files=FILES)
