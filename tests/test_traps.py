"""The table of traps in docs/reliability.md: every test that it names is there and has the number of its trap."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
_, _, SECTION = (TESTS.parent / "docs" / "reliability.md").read_text().partition("\n## Traps of other work queues\n")
ROWS = {
    int(number): tests
    for number, tests in re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", SECTION.partition("\n## ")[0], flags=re.MULTILINE)
}
WITHOUT_GROUPS = {9, 10}


def docstring_of(name: str) -> str:
    """Return the docstring of a test, named as in the table; raises KeyError if there is no such test."""
    path, *names = name.split("::")
    node: ast.AST = ast.parse((TESTS / f"{path}.py").read_text())
    for each in names:
        node = {child.name: child for child in node.body if isinstance(child, ast.FunctionDef | ast.ClassDef)}[each]
    return ast.get_docstring(node) or ""


def test_every_trap_has_a_row():
    assert list(ROWS) == [number for number in range(1, 17) if number not in WITHOUT_GROUPS]


@pytest.mark.parametrize("number", ROWS)
def test_its_tests_name_it(number):
    names = re.findall(r"`([^`]+)`", ROWS[number])
    assert names
    for name in names:
        assert re.match(rf"Trap {number}\b", docstring_of(name)), name


def test_every_test_that_names_a_trap_is_in_the_table():
    named = re.compile(r'^ +"""Trap (\d+)\b', flags=re.MULTILINE)
    found = [int(number) for path in TESTS.rglob("test_*.py") for number in named.findall(path.read_text())]
    listed = [number for number, tests in ROWS.items() for _ in re.findall(r"`[^`]+`", tests)]
    assert sorted(found) == sorted(listed)
