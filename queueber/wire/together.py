"""Which messages are taken in together, and which one by one."""

from queueber.limits import Limits
from queueber.wire.callee import Callee
from queueber.wire.events import CalledAlike
from queueber.wire.framing import Framer
from queueber.wire.messages import Shape
from queueber.wire.reader import Frame
from queueber.wire.runs import LEAST, Row, Run, calls_in, finishes_in, row_of, rows_of, uses_early
from queueber.wire.shapes import Shapes


class Together:
    """Looks at each message of one connection, and takes in those in one step that are alike and lie in a row."""

    def __init__(self, limits: Limits, framer: Framer, shapes: Shapes, callee: Callee) -> None:
        self._limits, self._framer, self._shapes, self._callee = limits, framer, shapes, callee
        self._singly = 0
        """So many messages have to be taken in one by one."""

    def take(self, frame: Frame) -> list[CalledAlike] | None:
        """
        Take in *frame* and those behind it that are like it.

        Returns:
            The calls among them; None, and nothing was done, if *frame* has to be taken in by itself.
        """
        if self._singly:
            self._singly -= 1
            return None
        words = frame.words
        if frame.end >= len(words):
            return None
        if words[frame.end] == words[frame.start - 1]:
            row = row_of(frame)
            count = row.count
            taken = self._take_row(row) if count >= LEAST else None
        else:
            rows = rows_of(frame)
            if rows is None:
                return None
            row = rows[0]
            count = 2 * row.count
            taken = self._take_rows(*rows) if row.count >= LEAST else None
        if taken is None:
            self._singly = count - 1
            return None
        messages, calls = taken
        self._framer.skip(messages * row.stride - (frame.end - frame.start + 1))
        return calls

    def _take_row(self, row: Row) -> tuple[int, list[CalledAlike]] | None:
        """How many of the messages of *row* were taken in, and the calls they are."""
        shape = self._shapes.find(row.first)
        if shape is not None:
            return self._take_calls(calls_in(row, shape, self._limits), shape)
        answers = finishes_in(row)
        return (len(answers), []) if answers and self._callee.answers.finish_each(answers) else None

    def _take_rows(self, finishes: Row, calls: Row) -> tuple[int, list[CalledAlike]] | None:
        """The same for pairs of a Finish and a Call: all the Finishes first."""
        shape = self._shapes.find(calls.first)
        answers = [] if shape is None else finishes_in(finishes)
        run = None if shape is None else calls_in(calls.until(len(answers)), shape, self._limits)
        if shape is None or run is None:
            return None
        del answers[len(run.answers) :]
        # A call must not get a number that is free only because its Finish is taken first.  Should the calls not be
        # admitted, the Finishes come a second time, one by one, and are unknown then, which is no error; but they must
        # have made no more room at any call than one by one.
        if len(set(answers)) < len(answers) or uses_early(run.answers, answers):
            return None
        if not self._callee.answers.finish_each(answers):
            return None
        return self._take_calls(run, shape)

    def _take_calls(self, run: Run | None, shape: Shape) -> tuple[int, list[CalledAlike]] | None:
        target = None if run is None else self._callee.admit_each(run.answers, shape.target)
        if run is None or target is None:
            return None
        calls = CalledAlike(run.answers, target, shape.interface_id, shape.method_id, run.params, run.requests)
        return len(run.answers), [calls]
