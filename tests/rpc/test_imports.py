"""References to imports."""

import pytest

from queueber.errors import LocalProtocolError, RemoteProtocolError
from queueber.rpc.imports import Imports


def test_all_references_are_released_with_the_last():
    imports = Imports(limit=2)
    for _ in range(3):
        imports.receive(7)
        imports.check()
    assert [imports.drop(7), imports.drop(7)] == [0, 0]
    imports.receive(7)
    assert [imports.drop(7), imports.drop(7)] == [0, 4]
    assert 7 not in imports
    assert len(imports) == 0


def test_an_import_without_references_cannot_be_dropped():
    with pytest.raises(LocalProtocolError):
        Imports(limit=1).drop(0)


def test_imports_are_bounded():
    imports = Imports(limit=1)
    imports.receive(1)
    imports.receive(1)
    with pytest.raises(RemoteProtocolError, match="more than 1 capability"):
        imports.receive(2)
    assert [number for number, _ in imports.items()] == [1]
