"""The base of the machines that drive a broker at random."""

from collections.abc import Callable, Hashable
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine
from queue_model import dead


class BrokerMachine(RuleBasedStateMachine):
    """
    Drives the broker of a harness.

    `now_model` takes an effect when its plan is made, and `durable` when the plan is durable: see `test_model`.
    """

    harness: Any
    now_model: Any
    durable: Any
    effects: dict[object, tuple[Callable[[Any], object], ...]]

    def __init__(self, make_harness):
        super().__init__()
        self.make_harness = make_harness

    @property
    def broker(self):
        return self.harness.broker

    @property
    def now(self):
        return self.harness.now

    def submit(self, plan: object, *effects: Callable[[Any], object]) -> None:
        self.harness.submit(plan)
        for effect in effects:
            effect(self.now_model)
        self.effects[plan] = effects

    def made_durable(self, plan: object) -> None:
        for effect in self.effects.pop(plan, ()):
            effect(self.durable)

    def name_of(self, number) -> Hashable:
        """Return the model's name of a queue."""
        record = self.harness.rows.queues[number]
        return dead(record.name) if record.dead_of else record.name
