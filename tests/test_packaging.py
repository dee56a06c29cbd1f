"""What gets into the wheel."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SOURCES = ["pyproject.toml", "README.md", "queueber", "schema", "twisted"]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The files in a wheel: in the one that `QUEUEBER_WHEEL` names, or in one that is built for this."""
    given = os.environ.get("QUEUEBER_WHEEL")
    wheel = Path(given) if given else build(tmp_path_factory.mktemp("wheel"))
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def build(folder):
    tree = folder / "tree"
    tree.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tree / name)
    # Twisted leaves this beside the plugins of a checkout in use.
    (tree / "twisted" / "plugins" / "dropin.cache").write_bytes(b"state of some machine")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(tree)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.mark.parametrize(
    "name",
    [
        "twisted/plugins/queueber_plugin.py",
        "queueber/schema/queueber.capnp",
        "queueber/schema/storage.capnp",
        "queueber/py.typed",
    ],
)
def test_the_wheel_has_what_a_server_needs_besides_its_modules(names, name):
    assert name in names


def test_the_wheel_has_every_module(names):
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "queueber").rglob("*.py")} <= names


def test_the_wheel_has_nothing_of_this_machine_and_nothing_of_twisted(names):
    strays = [
        name
        for name in names
        if name.endswith(("dropin.cache", ".pyc")) or (name.startswith("twisted/") and name.endswith("__init__.py"))
    ]
    assert not strays
