"""plyvel's own tests, out of its source distribution, with our module in the place of theirs."""

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

ROOT = Path(queueber.__file__).parents[1]

# As many as there are in that version: one that is not run any more would not be missed otherwise.
CASES = 54

CANNOT_PASS = {"test_comparator": "rocksdict has no way to give RocksDB a comparator"}
if os.geteuid() == 0:
    CANNOT_PASS["test_open_read_only_dir"] = "nothing is read-only to root; plyvel itself fails it then"

# Arguments of `iterator` that are plyvel's in every respect.
WORDS_OF_RANGES = ("reverse", "include_start", "include_stop", "include_key", "include_value", "prefix")

STAND_IN = """
import sys
from queueber import plyvel

sys.modules["plyvel"] = plyvel
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A directory with plyvel's tests and the stand-in."""
    made = tmp_path_factory.mktemp("upstream")
    wanted = f"plyvel=={plyvel.__version__}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # To name a distribution pip runs its build as far as the metadata, in an environment of its own.
    fetch = [*pip, "--no-binary", "plyvel", "--retries", "1", "--timeout", "10", "--dest", str(made), wanted]
    try:
        done = subprocess.run(fetch, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{wanted} could not be fetched within two minutes")
    if done.returncode:
        pytest.skip(f"{wanted} could not be fetched: {(done.stderr.strip().splitlines() or ['pip says nothing'])[-1]}")
    (archive,) = made.glob("plyvel-*.tar.gz")
    with tarfile.open(archive) as opened:
        found = opened.extractfile(f"plyvel-{plyvel.__version__}/test/test_plyvel.py")
        assert found is not None
        (made / "test_plyvel.py").write_bytes(found.read())
    (made / "conftest.py").write_text(STAND_IN)
    (made / "pytest.ini").write_text("[pytest]\n")
    return made


@pytest.mark.slow
def test_plyvels_own_tests_pass_but_for_those_that_are_named(folder):
    report = folder / "report.xml"
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", "test_plyvel.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert report.exists(), done.stdout + done.stderr
    cases = {case.get("name"): case for case in ET.parse(report).iter("testcase")}
    assert len(cases) == CASES
    # Not one more and not one less: who makes one pass takes it out of the list.
    assert {name for name, case in cases.items() if len(case)} == set(CANNOT_PASS), done.stdout


def test_every_name_of_plyvel_is_there():
    theirs = pytest.importorskip("plyvel")
    missing = {name for name in vars(theirs) if not name.startswith("_")} - set(vars(plyvel))
    assert not missing
    for one, other in (
        (plyvel.DB, theirs.DB),
        (plyvel.PrefixedDB, theirs._plyvel.PrefixedDB),
        (plyvel.WriteBatch, theirs._plyvel.WriteBatch),
        (plyvel.Iterator, theirs._plyvel.Iterator),
        (plyvel.RawIterator, theirs._plyvel.RawIterator),
        (plyvel.Snapshot, theirs._plyvel.Snapshot),
    ):
        public = {name for name in dir(other) if not name.startswith("_")}
        assert public <= set(dir(one))


def test_every_name_and_every_case_that_cannot_pass_is_in_the_documents():
    text = (ROOT / "docs" / "plyvel.md").read_text()
    names = {*plyvel.__all__, *Parameters.__annotations__, *IteratorArguments.__annotations__} - set(WORDS_OF_RANGES)
    names |= {name for name in vars(plyvel.DB) if not name.startswith("_")}
    assert not {name for name in names | set(CANNOT_PASS) if not re.search(rf"[`.]{name}\b", text)}


def test_errors_are_related_as_plyvels_are():
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
