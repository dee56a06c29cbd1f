"""Every mutant is a patch that still applies, has a test that is still there, and is in the docs."""

import re
import shutil
import sys

import mutants
import pytest


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    shutil.copytree(mutants.ROOT / "queueber", folder / "queueber", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_all_are_there_and_numbered():
    assert [each.number for each in mutants.MUTANTS] == list(range(1, len(mutants.MUTANTS) + 1))
    assert {each.patch for each in mutants.MUTANTS} == set(mutants.FOLDER.iterdir())


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda each: each.name)
def test_the_patch_still_applies(mutant, tree):
    assert mutants.apply(mutant.patch, tree, "--dry-run") is None


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda each: each.name)
def test_the_test_that_is_to_find_it_is_still_there(mutant):
    path, *_, name = mutant.test.split("::")
    assert re.search(rf"^ *def {name}\(", (mutants.ROOT / path).read_text(), flags=re.MULTILINE)


def test_the_docs_have_their_number():
    assert f"each of {len(mutants.MUTANTS)} bugs" in (mutants.ROOT / "docs" / "reliability.md").read_text()


def test_each_is_listed_with_its_test(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mutants.py", "--list"])
    assert mutants.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [int(line.split()[0]) for line in lines] == list(range(1, len(mutants.MUTANTS) + 1))
    assert lines[1] == " 2 nothing is synced: test_nothing_is_lost_whatever_the_disk_may_do"


@pytest.mark.slow
def test_a_mutant_is_found():
    counts = mutants.judge([each for each in mutants.MUTANTS if each.number == 20])
    assert (counts.failures, counts.n) == ([], 1)


@pytest.mark.slow
def test_a_change_that_is_no_bug_lives(tmp_path, monkeypatch):
    (tmp_path / "20-nothing.patch").write_text(
        "--- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n-{0}\n+{0}!\n".format(
            (mutants.ROOT / "README.md").read_text().splitlines()[0]
        )
    )
    monkeypatch.setattr(mutants, "FOLDER", tmp_path)
    (failure,) = mutants.judge([mutants.Mutant("20-nothing", "nothing", mutants.MUTANTS[19].test)]).failures
    assert "lives: green" in failure


TEST = "tests/a.py::test_a"


@pytest.mark.parametrize(
    ("status", "said", "colour"),
    [
        (0, "1 passed", "green"),
        (1, f"FAILED {TEST} - assert 1 == 2", "red"),
        (1, f"FAILED {TEST}[b-c] - AssertionError: no", "red"),
        (1, f"FAILED {TEST} - Failed: DID NOT RAISE StorageError", "red"),
        (1, f"FAILED {TEST} - ImportError: cannot import name", "crashed"),
        (1, f"FAILED {TEST} - TypeError: an argument too many", "crashed"),
        (1, f"FAILED {TEST}_too - assert 1 == 2", "no verdict, status 1"),
        (1, f"ERROR {TEST} - AssertionError: in a fixture", "no verdict, status 1"),
        (2, f"ERROR {TEST} - ImportError: cannot import name", "no verdict, status 2"),
        (4, "", "no verdict, status 4"),
    ],
)
def test_only_an_assertion_that_fails_is_red(status, said, colour):
    assert mutants.verdict(TEST, status, f"F\n{said}\n")[0] == colour


def test_a_patch_that_does_not_fit_is_not_made_to(tmp_path):
    (tmp_path / "file").write_text("one\ntwo\nthree\nfour\n")
    patch = tmp_path / "patch"
    patch.write_text("--- a/file\n+++ b/file\n@@ -1,4 +1,4 @@\n one\n-two\n+2\n three\n 4\n")
    assert mutants.apply(patch, tmp_path, "--dry-run") is not None


def test_a_patch_that_does_not_apply_is_an_error(tmp_path):
    assert mutants.apply(mutants.MUTANTS[0].patch, tmp_path, "--dry-run") is not None


def test_a_patch_that_is_applied_already_is_an_error(tmp_path):
    copy = mutants.copied(tmp_path)
    assert mutants.apply(mutants.MUTANTS[14].patch, copy) is None
    assert mutants.apply(mutants.MUTANTS[14].patch, copy, "--dry-run") is not None
