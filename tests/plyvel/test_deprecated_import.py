"""`queueber.store.plyvel`, where the package used to be."""

import sys

import pytest

import queueber.store
from queueber import plyvel
from tests.support.processes import completed


def test_importing_the_old_name_warns_and_gives_the_package():
    # In a process of its own: once the submodule is imported, the package's attribute is found without a warning.
    script = "from queueber.store import plyvel; from queueber import plyvel as new; print(plyvel is new)"
    done = completed([sys.executable, "-W", "always", "-c", script])
    assert done.stdout == "True\n"
    assert "<string>:1: DeprecationWarning: queueber.store.plyvel is now queueber.plyvel" in done.stderr


def test_the_attribute_of_the_store_warns():
    with pytest.warns(DeprecationWarning, match=r"queueber\.store\.plyvel is now queueber\.plyvel"):
        assert queueber.store.__getattr__("plyvel") is plyvel
    with pytest.raises(AttributeError, match="has no attribute 'plywood'"):
        queueber.store.__getattr__("plywood")


def test_the_old_submodule_has_every_name_and_warns_of_each_use():
    import queueber.store.plyvel as old  # noqa: PLC0415 - the import itself must not warn: tools import every module

    assert old.__all__ == plyvel.__all__
    for name in plyvel.__all__:
        with pytest.warns(DeprecationWarning, match="is now") as warned:
            assert getattr(old, name) is getattr(plyvel, name)
        assert warned[0].filename == __file__
    with pytest.raises(AttributeError, match="has no attribute 'db'"):
        _ = old.db
