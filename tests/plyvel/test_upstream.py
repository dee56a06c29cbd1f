"""plyvel's own tests, from its source distribution, run on `queueber.plyvel`, and comparisons of the public names."""

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import queueber
from queueber import plyvel
from queueber.plyvel.iterator import IteratorArguments
from queueber.plyvel.options import Parameters
from tests.support.processes import completed

ROOT = Path(queueber.__file__).parents[1]

# The number of tests in that version, so that a test that is no longer collected is noticed.
TEST_COUNT = 54

FAILING = {"test_comparator": "rocksdict has no way to give RocksDB a comparator"}
if os.geteuid() == 0:
    FAILING["test_open_read_only_dir"] = "nothing is read-only to root; plyvel itself fails it then"

# Arguments of `iterator` that behave as plyvel's and are not in the documentation.
UNDOCUMENTED_ARGUMENTS = ("reverse", "include_start", "include_stop", "include_key", "include_value", "prefix")

CONFTEST = """
import sys
from queueber import plyvel

sys.modules["plyvel"] = plyvel
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    """A directory with plyvel's tests and a conftest that installs `queueber.plyvel` as `plyvel`."""
    made = tmp_path_factory.mktemp("upstream")
    wanted = f"plyvel=={plyvel.__version__}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # pip builds the metadata in an isolated environment, which takes most of the time.
    fetch = [*pip, "--no-binary", "plyvel", "--retries", "1", "--timeout", "10", "--dest", str(made), wanted]
    try:
        done = completed(fetch)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{wanted} could not be fetched within two minutes")
    if done.returncode:
        pytest.skip(f"{wanted} could not be fetched: {(done.stderr.strip().splitlines() or ['pip says nothing'])[-1]}")
    (archive,) = made.glob("plyvel-*.tar.gz")
    with tarfile.open(archive) as opened:
        found = opened.extractfile(f"plyvel-{plyvel.__version__}/test/test_plyvel.py")
        assert found is not None
        (made / "test_plyvel.py").write_bytes(found.read())
    (made / "conftest.py").write_text(CONFTEST)
    (made / "pytest.ini").write_text("[pytest]\n")
    return made


@pytest.mark.slow
def test_plyvels_own_tests_pass_except_the_listed_ones(directory):
    report = directory / "report.xml"
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", "test_plyvel.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = completed(run, cwd=directory, env=environment, timeout=240)
    assert report.exists(), done.stdout + done.stderr
    cases = {case.get("name"): case for case in ET.parse(report).iter("testcase")}
    assert len(cases) == TEST_COUNT
    # Exactly these: a test that passes now must be removed from the list.
    assert {name for name, case in cases.items() if len(case)} == set(FAILING), done.stdout


def test_every_public_name_of_plyvel_exists():
    theirs, native = pytest.importorskip("plyvel"), pytest.importorskip("plyvel._plyvel")
    missing = {name for name in vars(theirs) if not name.startswith("_")} - set(vars(plyvel))
    assert not missing
    for one, other in (
        (plyvel.DB, theirs.DB),
        (plyvel.PrefixedDB, native.PrefixedDB),
        (plyvel.WriteBatch, native.WriteBatch),
        (plyvel.Iterator, native.Iterator),
        (plyvel.RawIterator, native.RawIterator),
        (plyvel.Snapshot, native.Snapshot),
    ):
        public = {name for name in dir(other) if not name.startswith("_")}
        assert public <= set(dir(one))


def test_every_name_and_every_failing_test_is_documented():
    text = (ROOT / "docs" / "plyvel.md").read_text()
    names = {*plyvel.__all__, *Parameters.__annotations__, *IteratorArguments.__annotations__} - set(
        UNDOCUMENTED_ARGUMENTS
    )
    names |= {name for name in vars(plyvel.DB) if not name.startswith("_")}
    assert not {name for name in names | set(FAILING) if not re.search(rf"[`.]{name}\b", text)}


def test_error_classes_are_related_as_plyvels_are():
    theirs = pytest.importorskip("plyvel")
    names = ("Error", "IOError", "CorruptionError", "IteratorInvalidError")
    for name in names:
        mine, other = getattr(plyvel, name), getattr(theirs, name)
        for wider in names:
            assert issubclass(mine, getattr(plyvel, wider)) == issubclass(other, getattr(theirs, wider))
        assert issubclass(mine, OSError) == issubclass(other, OSError)
    assert plyvel.__version__ == theirs.__version__
    assert plyvel.__leveldb_version__ == theirs.__leveldb_version__
    assert plyvel.__rocksdict_version__.split(".")[0].isdigit()
