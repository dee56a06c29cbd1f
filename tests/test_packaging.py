"""The contents of the wheel."""

import email
import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.processes import completed

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SOURCES = ["pyproject.toml", "README.md", "queueber", "schema", "twisted"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The one that `QUEUEBER_WHEEL` names, or one that is built for this."""
    given = os.environ.get("QUEUEBER_WHEEL")
    return Path(given) if given else build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def names(wheel):
    """The files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel):
    """The metadata of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


def build(folder):
    tree = folder / "tree"
    tree.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tree / name)
    # Twisted leaves this next to the plugins of a checkout in use.
    (tree / "twisted" / "plugins" / "dropin.cache").write_bytes(b"state of some machine")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(tree)]
    done = completed(command)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.mark.parametrize(
    "name",
    [
        "twisted/plugins/queueber_plugin.py",
        "queueber/schema/queueber.capnp",
        "queueber/schema/storage.capnp",
        "queueber/schema/admin.capnp",
        "queueber/plyvel/options_file/OPTIONS-000001",
        "queueber/schema/compiled.json",
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


def test_the_wheel_is_for_any_machine(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")


@pytest.mark.parametrize(("extra", "library"), [("tls", "twisted[tls]"), ("http", "prometheus-client")])
def test_what_not_every_server_needs_is_an_extra(metadata, extra, library):
    needed = [line.replace("_", "-").partition(";") for line in metadata.get_all("Requires-Dist")]
    assert extra in metadata.get_all("Provides-Extra")
    assert [name for name, _, marker in needed if f"extra == '{extra}'" in marker and name.startswith(library)]
    assert not [name for name, _, marker in needed if not marker and name.startswith(library)]


def test_what_only_compiles_the_schemas_is_not_installed(metadata):
    needed = [line for line in metadata.get_all("Requires-Dist") if line.startswith("pycapnp")]
    assert all("extra ==" in line for line in needed)
