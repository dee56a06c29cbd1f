"""The catalogue's page: every entry has its row, and every proof that it names exists."""

import ast
import functools
import re
from pathlib import Path

import pytest

from queueber.limits import PEER_LIMITS
from tests.hostile.attacks import ATTACKS
from tests.hostile.cases import CASES
from tests.support.fixed_limits import FIXED_LIMITS

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "hostile-input.md").read_text()
CATALOGUE, _, _ = PAGE.partition("\n## What the healthy client sees\n")
assert CATALOGUE != PAGE
ENTRIES = [
    f"{letter}{number}"
    for letter, last in zip("WRSOK", (27, 22, 25, 19, 10), strict=True)
    for number in range(1, last + 1)
]

ROWS = {
    cells[0]: cells[1:]
    for line in CATALOGUE.splitlines()
    if re.match(r"\| [WRSOK]\d+ \|", line)
    for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
}


@functools.cache
def functions(path):
    """Return all tests of a file, those of classes with their class."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found.update(f"{node.name}::{each.name}" for each in node.body if isinstance(each, ast.FunctionDef))
    return found


def spread(entries):
    """Return the entries: `W3-W5` is three."""
    for entry in entries:
        first, _, last = entry.partition("-")
        yield from (f"{first[0]}{number}" for number in range(int(first[1:]), int((last or first)[1:]) + 1))


def test_every_entry_has_one_row_in_order():
    rows = re.findall(r"^\| ([WRSOK]\d+) \|", CATALOGUE, flags=re.MULTILINE)
    assert rows == ENTRIES


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_proof_that_is_named_is_there(entry):
    _, outcome, proof = ROWS[entry]
    assert outcome
    tests, attacks = re.findall(r"`([^`]+)`", proof), re.findall(r"\*([^*]+)\*", proof)
    assert tests or attacks
    for test in tests:
        if test == "cases":
            assert entry in {case.entry for case in CASES}
        elif test.startswith("python "):
            assert (TESTS.parent / test.split()[1]).exists()
        else:
            file, _, name = test.partition("::")
            assert name in functions(TESTS / f"{file}.py"), test
    for attack in attacks:
        assert entry in spread(ATTACKS[attack].entries), attack


def test_every_attack_and_every_case_is_on_the_page():
    named = {attack for _, _, proof in ROWS.values() for attack in re.findall(r"\*([^*]+)\*", proof)}
    assert ATTACKS.keys() - named == {"every message of the catalogue"}
    assert {case.entry for case in CASES} == {entry for entry, row in ROWS.items() if "`cases`" in row[-1]}


def test_no_attack_has_two_rows_in_the_table_of_figures():
    _, _, table = PAGE.partition("\n## What the healthy client sees\n")
    rows = re.findall(r"^\| ([WRSOK]\d[^|]*) \| ([^|]+) \|", table, flags=re.MULTILINE)
    assert len(rows) == len(set(rows)) == len({attack for _, attack in rows})
    assert {attack: tuple(entries.split(", ")) for entries, attack in rows} == {
        name: tuple(attack.entries) for name, attack in ATTACKS.items() if name in {attack for _, attack in rows}
    }
    assert {attack for _, attack in rows} <= ATTACKS.keys()


def test_what_is_one_pot_for_all_is_the_same_list_on_both_pages():
    """One page is read before a server is set up, the other when calls are refused."""
    section = PAGE.partition("\n## Limits shared by all peers\n")[2].partition("\n## ")[0]
    pots = re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)
    operating = (TESTS.parent / "docs" / "operating.md").read_text()
    (line,) = [line for line in operating.splitlines() if "limits shared by all peers" in line]
    assert re.findall(r"`(\w+)`", line.partition("limits shared by all peers")[2]) == pots
    assert set(pots) <= {limit.name for limit in (*PEER_LIMITS, *FIXED_LIMITS)}
