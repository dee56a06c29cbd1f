"""The table of ids that we assign."""

from hypothesis import given
from hypothesis import strategies as st

from queueber.rpc.id_table import IdTable


@given(st.lists(st.integers(0, 4)))
def test_an_id_is_used_for_one_entry_at_a_time(steps):
    """Each step adds an entry, or drops the one at that place in the model."""
    table, model = IdTable(), {}
    for count, step in enumerate(steps):
        if step and step <= len(model):
            number = sorted(model)[step - 1]
            table.drop(number)
            del model[number]
        else:
            number = table.add(count)
            assert number == min(set(range(len(model) + 1)) - model.keys())
            model[number] = count
        table.check()
        assert dict(table.items()) == model
        assert len(table) == len(model)
        assert [table.find(number) for number in range(10)] == [model.get(number) for number in range(10)]
