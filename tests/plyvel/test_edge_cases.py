"""
Ours and plyvel side by side at the edges: what cannot be opened, what sizes are, and what one may do to the objects.

The texts of errors are each module's own.
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

# What plyvel 1.5.1 does with a database that this process has open: it repairs the files under its feet.
SAFER = {("repair_db", "open")}


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
    """None when *call* works; else the name of its error, with the module it comes from."""
    try:
        made = call()
    except Exception as error:  # noqa: BLE001  (which one is the question)
        kind = type(error)
        own = getattr(module, kind.__name__, None) is kind
        return f"plyvel.{kind.__name__}" if own else kind.__name__
    if hasattr(made, "close"):
        made.close()
    return None


def sides(tmp_path):
    """Both modules, each with a directory of its own in which the same is prepared."""
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
def test_what_cannot_be_opened_is_the_same_error(tmp_path, name, asked):
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
def test_what_cannot_be_repaired_or_destroyed_is_the_same_error(tmp_path, function, name):
    outcomes = []
    for module, folder in sides(tmp_path):
        with module.DB(f"{folder}/open", **CREATE):
            outcomes.append(outcome(module, lambda m=module, f=folder: getattr(m, function)(placed(f, name))))
    ours, theirs = outcomes
    if (function, name) in SAFER:
        assert (ours, theirs) == ("plyvel.IOError", None)
    else:
        assert ours == theirs


@pytest.mark.parametrize("name", ["", b"", None, 3, Path("x"), bytearray(b"x")])
def test_names_that_are_none(name):
    for call in ("DB", "repair_db", "destroy_db"):
        ours, theirs = (
            outcome(module, lambda m=module, c=call: getattr(m, c)(name)) for module in (ours_module, theirs_module)
        )
        assert ours == theirs


def test_what_is_not_to_be_made_leaves_nothing(tmp_path):
    """plyvel leaves a directory with a lock in it, and one named like what is before the NUL."""
    for name in ("new", "no/such", "before\0behind"):
        assert outcome(ours_module, lambda n=name: ours_module.DB(f"{tmp_path}/{n}")) is not None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_the_same_numbers(tmp_path, size, value):
    # Not the largest that there are: LevelDB sets the cache's table aside at once.
    ours, theirs = (
        outcome(module, lambda m=module: m.DB(f"{tmp_path}/{m.__name__}", **CREATE, **{size: value}))
        for module in (ours_module, theirs_module)
    )
    assert ours == theirs


def test_a_block_is_at_most_4_gib(tmp_path):
    """RocksDB's own limit."""
    with pytest.raises(ours_module.Error, match="4GiB"):
        ours_module.DB(f"{tmp_path}/db", **CREATE, block_size=2**32 + 1)


def test_unknown_words_are_refused_in_the_name_of_who_was_called(tmp_path):
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


def things(db):
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
        others = things(theirs)
        yield [(thing, others[name]) for name, thing in things(ours).items()]


def both(pair, call):
    return tuple(outcome(module, lambda t=thing: call(t)) for module, thing in zip(MODULES, pair, strict=True))


MODULES = (ours_module, theirs_module)


@pytest.mark.parametrize("call", [copy.copy, copy.deepcopy, pickle.dumps])
def test_nothing_is_copied_that_plyvel_does_not_copy(pairs, call):
    for pair in pairs:
        ours, theirs = both(pair, lambda thing: call(thing) and None)
        assert ours == theirs


@pytest.mark.parametrize("name", ["foo", "name", "closed", "db", "prefix", "get", "put", "close", "next", "__doc__"])
def test_attributes_can_be_set_where_plyvels_can(pairs, name):
    for pair in pairs:
        for call in (lambda thing: setattr(thing, name, 1), lambda thing: delattr(thing, name)):
            ours, theirs = both(pair, call)
            assert ours == theirs == "AttributeError"


def test_more_is_allowed_where_it_does_no_harm(pairs):
    """What a program for plyvel cannot have done, so that none depends on it."""
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
