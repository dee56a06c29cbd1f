"""The names of queues in order, and by label."""

from hypothesis import given
from hypothesis import strategies as st

from queueber.broker.name_index import NameIndex

NAMES = st.text("abé\U0001f600", min_size=1, max_size=3)
LABELS = st.sets(st.tuples(st.sampled_from(["team", "tier"]), st.sampled_from(["x", "y"])), max_size=2)


@given(
    changes=st.lists(st.tuples(NAMES, st.none() | LABELS), max_size=30),
    searches=st.lists(st.tuples(st.integers(0, 29), NAMES | st.just(""), NAMES | st.just("")), max_size=5),
    label=st.none() | st.tuples(st.sampled_from(["team", "tier"]), st.sampled_from(["x", "y"])),
)
def test_finds_what_a_sorted_dictionary_has(changes, searches, label):
    """A change adds a name with labels or gives it others, or discards it."""
    index, expected = NameIndex(), {}
    for step, (name, labels) in enumerate(changes):
        if labels is None:
            if name in expected:
                index.relabel(name, expected.pop(name), ())
                index.discard(name)
        else:
            if name not in expected:
                index.add(name)
            index.relabel(name, expected.get(name, ()), labels)
            expected[name] = labels
        assert len(index) == len(expected)
        for at, prefix, after in searches:
            if at == step:
                assert list(index.search(prefix, label=label, after=after)) == [
                    each
                    for each in sorted(expected, key=str.encode)
                    if each.startswith(prefix) and each > after and (label is None or label in expected[each])
                ]


def test_discarded_names_are_forgotten_once_they_are_most():
    index = NameIndex()
    for name in "abcdef":
        index.add(name)
    for name in "bcdef":
        index.discard(name)

    assert list(index.search()) == ["a"]
    index.add("f")
    assert list(index.search()) == ["a", "f"]


def test_a_discarded_name_is_passed_over_while_the_index_still_has_it():
    index = NameIndex()
    for name in "abc":
        index.add(name)
    index.discard("b")

    assert list(index.search()) == ["a", "c"]


def test_a_search_without_new_names_needs_no_sort():
    index = NameIndex()
    for name in "ba":
        index.add(name)

    assert list(index.search()) == list(index.search()) == ["a", "b"]
    index.discard("a")
    assert len(index) == 1


def test_a_label_that_one_name_loses_still_finds_the_other():
    index, team = NameIndex(), ("team", "x")
    for name in "ab":
        index.add(name)
        index.relabel(name, (), [team])

    index.relabel("a", [team], ())

    assert list(index.search(label=team)) == ["b"]
    index.relabel("b", [team], ())
    assert list(index.search(label=team)) == []
