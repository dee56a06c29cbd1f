"""The three faces have the same names, parameters, defaults and first lines of docstrings."""

import inspect
import re
import typing
from pathlib import Path

import pytest

import queueber.aio
import queueber.client
import queueber.sync
from queueber.capnp.schema import schema

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
FACES = {"client": queueber.client, "aio": queueber.aio, "sync": queueber.sync}
CLASSES = ["Client", "Queue", "Batch", "Item", "Items", "Session", "QueueControl", "Admin"]

OWN = {
    ("client", "connect"): {"reactor"},
}
"""Parameters of one face."""

CORE = {
    "end",
    "tick",
    "next_at",
    "on_connected",
    "on_disconnected",
    "on_closing",
    "arrived",
    "failed",
    "poll_again",
    "batch",
    "hold",
}
"""Public methods by which parts of a client call each other."""


def class_of(face, name):
    """Return the class of a face, from the module in which it is if it is not exported."""
    for module in ("", ".control", ".admin", ".session", ".stream", ".items"):
        try:
            return getattr(__import__(f"queueber.{face}{module}", fromlist=["x"]), name)
        except (ImportError, AttributeError):
            continue
    raise AssertionError(f"queueber.{face} has no {name}")


ATTRIBUTES = {"state", "error", "grace_ms", "safe_until"}
"""Attributes of sessions, which are properties where another thread sets them."""


def public(kind):
    """Return the names of what a class offers to programs."""
    return {name for name in dir(kind) if not name.startswith("_")} - CORE - ATTRIBUTES


PAIRS = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__", "__anext__": "__next__"}


def protocols(kind):
    """Return the context and iteration protocols of a class, by their names for programs that block."""
    found = {PAIRS.get(name, name) for name in (*PAIRS, *PAIRS.values()) if hasattr(kind, name)}
    return found - {"__iter__"} if kind.__name__ == "Batch" else found


def parameters(function):
    """Return names, kinds and defaults."""
    return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]


def first_line(function):
    return inspect.cleandoc(function.__doc__ or "").splitlines()[0]


def results(function):
    """Return the annotated results, of each overload, without the way in which they are waited for."""
    texts = [str(each.__annotations__.get("return")) for each in typing.get_overloads(function) or [function]]
    texts = ["FilledBatch" if text == "UnlimitedPoll" else text for text in texts]
    return [re.sub(r"^(?:Deferred|Coroutine)\[(.*)\]$", r"\1", text) for text in texts]


@pytest.mark.parametrize("face", ["client", "sync"])
@pytest.mark.parametrize("name", CLASSES)
def test_a_class_has_the_same_members_as_in_asyncio(face, name):
    model, kind = class_of("aio", name), class_of(face, name)
    assert public(kind) == public(model)
    assert protocols(kind) == protocols(model)
    for member in public(model):
        function = inspect.getattr_static(model, member)
        if not inspect.isfunction(function):
            continue
        other = getattr(kind, member)
        assert parameters(other) == parameters(function), member
        assert first_line(other) == first_line(function), member
        assert results(other) == results(function), member


@pytest.mark.parametrize("face", ["client", "sync"])
def test_connect_takes_the_same(face):
    own = OWN.get((face, "connect"), set())
    found = [each for each in parameters(FACES[face].connect) if each[0] not in own]
    assert found == parameters(queueber.aio.connect)


def test_the_packages_export_the_same_names():
    assert queueber.aio.__all__ == queueber.sync.__all__ == queueber.client.__all__


@pytest.mark.parametrize("face", FACES.values(), ids=FACES)
def test_a_package_has_what_it_exports_and_says_so(face):
    assert set(face.__all__) <= set(dir(face))
    assert [name for name in face.__all__ if getattr(getattr(face, name), "__name__", "") != name] == ["GIVE_BACK_MS"]
    with pytest.raises(AttributeError, match="has no attribute 'Itms'"):
        _ = face.Itms


@pytest.mark.parametrize("face", FACES)
def test_the_reference_has_every_class_and_function(face):
    text = "".join((REFERENCE / f"{page}.md").read_text() for page in (face, "values", "errors"))
    names = {*FACES[face].__all__, "QueueControl", "Admin"} - {"GIVE_BACK_MS"}
    assert names <= set(re.findall(r"\w+", text))


INTERFACES = {"Queue": "Queue", "Broker": "Client", "QueueControl": "QueueControl", "Admin": "Admin"}
"""The class whose methods are those of an interface."""


@pytest.mark.parametrize("interface", INTERFACES)
def test_every_method_of_the_schema_is_there(interface):
    (found,) = [each for each in schema().interfaces.values() if each.name == interface]
    methods = {re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name) for name in found.methods}
    assert methods <= public(class_of("aio", INTERFACES[interface]))
