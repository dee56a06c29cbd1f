"""Every mutant is a patch that still applies, has a test that is still there, and is in the docs."""

import re
import shutil

import mutants
import pytest


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    shutil.copytree(mutants.ROOT / "queueber", folder / "queueber", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_all_twenty_are_there():
    assert [each.number for each in mutants.MUTANTS] == list(range(1, 21))
    assert {each.patch for each in mutants.MUTANTS} == set(mutants.FOLDER.iterdir())


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda each: each.name)
def test_the_patch_still_applies(mutant, tree):
    assert mutants.apply(mutant.patch, tree, "--dry-run") is None


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda each: each.name)
def test_the_test_that_is_to_find_it_is_still_there(mutant):
    path, *_, name = mutant.test.split("::")
    assert re.search(rf"^ *def {name}\(", (mutants.ROOT / path).read_text(), flags=re.MULTILINE)


def test_the_docs_have_the_table():
    text = (mutants.ROOT / "docs" / "reliability.md").read_text()
    for mutant in mutants.MUTANTS:
        assert f"| {mutant.number} | {mutant.what} | `{mutant.test.rpartition('::')[2]}` |" in text


def test_a_patch_that_does_not_apply_is_an_error(tmp_path):
    assert mutants.apply(mutants.MUTANTS[0].patch, tmp_path, "--dry-run") is not None


def test_a_patch_that_is_applied_already_is_an_error(tmp_path):
    copy = mutants.copied(tmp_path)
    assert mutants.apply(mutants.MUTANTS[14].patch, copy) is None
    assert mutants.apply(mutants.MUTANTS[14].patch, copy, "--dry-run") is not None
