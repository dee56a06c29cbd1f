"""
Comparison with plyvel of errors, size arguments and attributes.

The texts of errors differ and are not compared.
"""

import copy
import os
import pickle
from pathlib import Path
from weakref import ref

import plyvel as theirs_module
import pytest

from queueber import plyvel as ours_module

CREATE = {"create_if_missing": True}
REFUSE = {"error_if_exists": True}

NAMES = {"plain": "db", "missing parent": "no/such", "a file": "file", "below a file": "file/x", "NUL": "dir\0x"}
NAMES |= {"NUL in bytes": b"dir\0x", "long": "x" * 300, "open": "open", "closed": "closed", "of a link": "link"}
ASKED = {"": {}, "create": CREATE, "refuse": REFUSE, "create, refuse": CREATE | REFUSE}

# plyvel 1.5.1 repairs a database that this process has open, and loses rows.
STRICTER = {("repair_db", "open")}


class Truncated:
    def __int__(self):
        return 4096

    def __repr__(self):
        return "Truncated()"


class Indexed:
    def __index__(self):
        return 4096

    def __repr__(self):
        return "Indexed()"


SIZES = ("write_buffer_size", "max_open_files", "lru_cache_size", "block_size", "block_restart_interval")
SIZES += ("max_file_size", "bloom_filter_bits")
VALUES = (4096, 4096.0, 4096.7, 1.5, True, None, "4096", b"4096", 0, -1, -1.5, 2**31 - 1, 2**31, 2**64, 1e30)
VALUES += (float("nan"), float("inf"), [], Truncated(), Indexed())


def outcome(module, call):
    """
    Return None if *call* succeeds, else the name of its exception.

    For an exception of the module that is its nearest public class, with `plyvel.` before its name.
    """
    try:
        made = call()
    except Exception as error:  # noqa: BLE001  (its class is the result)
        public = [kind for kind in type(error).__mro__ if getattr(module, kind.__name__, None) is kind]
        return f"plyvel.{public[0].__name__}" if public else type(error).__name__
    if hasattr(made, "close"):
        made.close()
    return None


def sides(tmp_path):
    """Yield both modules, each with a directory of the same content."""
    for module, folder in ((ours_module, tmp_path / "ours"), (theirs_module, tmp_path / "theirs")):
        (folder / "dir").mkdir(parents=True)
        (folder / "file").touch()
        (folder / "link").symlink_to(folder / "nowhere")
        module.DB(f"{folder}/closed", **CREATE).close()
        yield module, folder


def placed(folder, name):
    return os.fsencode(folder) + b"/" + name if isinstance(name, bytes) else f"{folder}/{name}"


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_opening_fails_with_the_same_error(tmp_path, name, asked):
    outcomes = []
    for module, folder in sides(tmp_path):
        with module.DB(f"{folder}/open", **CREATE) as held:
            held.put(b"a", b"1")
            outcomes.append(outcome(module, lambda m=module, f=folder: m.DB(placed(f, name), **asked)))
            held.put(b"b", b"2")
        with module.DB(f"{folder}/open") as again:
            assert list(again) == [(b"a", b"1"), (b"b", b"2")]
    assert outcomes[0] == outcomes[1]
    assert not (tmp_path / "ours" / "no").exists()


@pytest.mark.parametrize("name", [*NAMES.values(), "nothing"], ids=[*NAMES, "nothing"])
@pytest.mark.parametrize("function", ["repair_db", "destroy_db"])
def test_repairing_and_destroying_fail_with_the_same_error(tmp_path, function, name):
    outcomes = []
    for module, folder in sides(tmp_path):
        with module.DB(f"{folder}/open", **CREATE):
            outcomes.append(outcome(module, lambda m=module, f=folder: getattr(m, function)(placed(f, name))))
    ours, theirs = outcomes
    if (function, name) in STRICTER:
        assert (ours, theirs) == ("plyvel.IOError", None)
    else:
        assert ours == theirs


@pytest.mark.parametrize("name", ["", b"", None, 3, Path("x"), bytearray(b"x")])
def test_a_name_of_a_wrong_type_is_the_same_error(name):
    for call in ("DB", "repair_db", "destroy_db"):
        ours, theirs = (
            outcome(module, lambda m=module, c=call: getattr(m, c)(name)) for module in (ours_module, theirs_module)
        )
        assert ours == theirs


def test_a_failed_opening_creates_nothing(tmp_path):
    """plyvel creates a directory with a lock file, and one with the part of a name before a NUL."""
    for name in ("new", "no/such", "before\0after"):
        assert outcome(ours_module, lambda n=name: ours_module.DB(f"{tmp_path}/{n}")) is not None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("size", SIZES)
def test_a_size_is_converted_or_refused_as_in_plyvel(tmp_path, size, value):
    # No larger sizes than these: LevelDB allocates the table of the cache at once.
    ours, theirs = (
        outcome(module, lambda m=module: m.DB(f"{tmp_path}/{m.__name__}", **CREATE, **{size: value}))
        for module in (ours_module, theirs_module)
    )
    assert ours == theirs


def test_a_block_size_above_4_gib_is_refused(tmp_path):
    """RocksDB's limit."""
    with pytest.raises(ours_module.Error, match="4GiB"):
        ours_module.DB(f"{tmp_path}/db", **CREATE, block_size=2**32 + 1)


def test_an_unknown_keyword_is_refused_with_the_name_of_the_function(tmp_path):
    with ours_module.DB(f"{tmp_path}/db", **CREATE) as db:
        for name, call in (
            ("DB", ours_module.DB),
            ("repair_db", ours_module.repair_db),
            ("iterator", lambda _, **wanted: db.iterator(**wanted)),
        ):
            with pytest.raises(TypeError, match=rf"{name}.*unexpected keyword argument 'nope'"):
                call(f"{tmp_path}/x", nope=3)
    with pytest.raises(TypeError, match="argument 'block_size' must be an integer, not str"):
        ours_module.DB(f"{tmp_path}/x", block_size="4096")


def objects(db):
    part = db.prefixed_db(b"a")
    return {
        "DB": db,
        "PrefixedDB": part,
        "WriteBatch": part.write_batch(),
        "Iterator": db.iterator(),
        "Iterator, reverse": db.iterator(reverse=True),
        "RawIterator": db.raw_iterator(),
        "Snapshot": db.snapshot(),
    }


@pytest.fixture
def pairs(tmp_path):
    with (
        ours_module.DB(f"{tmp_path}/ours", **CREATE) as ours,
        theirs_module.DB(f"{tmp_path}/theirs", **CREATE) as theirs,
    ):
        others = objects(theirs)
        yield [(thing, others[name]) for name, thing in objects(ours).items()]


def both(pair, call):
    return tuple(outcome(module, lambda t=thing: call(t)) for module, thing in zip(MODULES, pair, strict=True))


MODULES = (ours_module, theirs_module)


@pytest.mark.parametrize("call", [copy.copy, copy.deepcopy, pickle.dumps])
def test_the_same_objects_can_be_copied_as_in_plyvel(pairs, call):
    for pair in pairs:
        ours, theirs = both(pair, lambda thing: call(thing) and None)
        assert ours == theirs


@pytest.mark.parametrize("name", ["foo", "name", "closed", "db", "prefix", "get", "put", "close", "next", "__doc__"])
def test_attributes_are_read_only_as_in_plyvel(pairs, name):
    for pair in pairs:
        for call in (lambda thing: setattr(thing, name, 1), lambda thing: delattr(thing, name)):
            ours, theirs = both(pair, call)
            assert ours == theirs == "AttributeError"


def test_classes_can_be_subclassed_and_snapshots_weakly_referenced(pairs):
    """A program written for plyvel cannot depend on these."""
    for ours, theirs in pairs:

        def derive(kind):
            return type("Derived", (kind,), {})

        assert derive(type(ours))
        if type(theirs).__name__ != "PrefixedDB":
            with pytest.raises(TypeError):
                derive(type(theirs))
    snapshot, other = pairs[-1]
    assert ref(snapshot)() is snapshot
    with pytest.raises(TypeError):
        ref(other)
