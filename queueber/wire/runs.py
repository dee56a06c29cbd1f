"""
Messages of one length that lie in a row and differ in little: taken in together.

A client that keeps many calls under way sends many at a time, and most of what
they cost one by one is objects and steps of Python's.  The first of a row is
read as ever; of the others all that was looked at in the first is compared
with it, bytes with bytes, and only what may differ is taken out: the
question's number, and an item's contents, or its id and the lease.  The row
ends with the first that is not so.  So a row never says anything that reading
its messages one by one would not say.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from struct import Struct, calcsize
from typing import Any, Final, overload

from attrs import define

from queueber.limits import Limits
from queueber.wire.alike import ID_BYTES, AddTemplate, RemoveTemplate, read_alike_add, read_alike_remove
from queueber.wire.decoder import begins_as_finish
from queueber.wire.messages import AnswerId, Params, Shape
from queueber.wire.queue_types import NewItem
from queueber.wire.reader import WORD, Frame
from queueber.wire.shapes import KEY_TO, QUESTION_AT, QUESTION_BYTES

LEAST: Final = 4
"""So many messages must lie in a row for it to pay."""

_HEADER: Final = WORD
"""The table of a message of one segment."""

_FINISH: Final = Struct(f"<{_HEADER + QUESTION_AT}sI4x")
"""A Finish up to the question's number, that number, and whether references go with it."""

_new: Final = tuple.__new__
"""Makes a named tuple out of a plain one, in a third of the time that its class takes."""


@define(eq=False)
class RunParams(Sequence[Params]):
    """The parameters of the calls of a run, each made when it is asked for, which is seldom."""

    _first: Params
    _count: int

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Params: ...

    @overload
    def __getitem__(self, index: slice) -> list[Params]: ...

    def __getitem__(self, index: int | slice) -> Params | list[Params]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        first = self._first
        frame = first.frame
        further = index * _stride(frame)
        start, end = frame.start + further, frame.end + further
        apart = Frame(frame.data, frame.words, start, end, None, frame.factor * _stride(frame), frame.factor)
        return Params(apart, first.at + further, start, end, first.shape)


@define(eq=False)
class Run:
    """Calls of one method of one object, one after the other."""

    answers: list[AnswerId]
    requests: list[NewItem] | list[tuple[bytes, bytes]]
    """What each adds, or the id and the lease of what it removes."""

    params: RunParams


def length_of(frame: Frame) -> int:
    """How many whole messages of the length of *frame*, which came over a stream, lie in a row with it as the first."""
    if frame.segments is not None:
        return 1
    at, stride = frame.start - 1, _stride(frame)
    header, most = frame.words[at], (len(frame.words) - at) // stride
    for count, each in enumerate(frame.words[at : at + most * stride : stride]):
        if each != header:
            return count
    return most


def _stride(frame: Frame) -> int:
    """From one message of this length to the next, in words."""
    return frame.end - frame.start + 1


def finishes_in(frame: Frame, count: int) -> list[AnswerId]:
    """What each Finish is for of those that begin a row of *count* messages; none if *frame* is something else."""
    if not begins_as_finish(frame) or _stride(frame) * WORD != _FINISH.size:
        return []
    first = (frame.start - 1) * WORD
    usual = frame.data[first : first + _HEADER + QUESTION_AT]
    found: list[AnswerId] = []
    for head, question in _FINISH.iter_unpack(_bytes_of(frame, count)):
        if head != usual:
            break
        found.append(question)
    return found


def _bytes_of(frame: Frame, count: int) -> memoryview:
    first = (frame.start - 1) * WORD
    return memoryview(frame.data)[first : first + count * _stride(frame) * WORD]


def calls_in(frame: Frame, shape: Shape, count: int, limits: Limits) -> Run | None:
    """The calls that begin a row of *count* messages and are like the first, which has *shape*; None if that is all."""
    template = shape.template
    params = Params(frame, frame.start + shape.at, frame.start, frame.end, shape)
    answers: list[AnswerId]
    requests: list[NewItem] | list[tuple[bytes, bytes]]
    if type(template) is AddTemplate:
        answers, requests = _adds(params, template, count, limits)
    elif type(template) is RemoveTemplate:
        answers, requests = _removes(params, template, count)
    else:
        return None
    return Run(answers, requests, RunParams(params, len(answers))) if len(answers) >= LEAST else None


def _adds(params: Params, template: AddTemplate, count: int, limits: Limits) -> tuple[list[AnswerId], list[NewItem]]:
    item = read_alike_add(params, limits)
    contents = (params.at + template.words + 1) * WORD
    answers: list[AnswerId] = []
    items: list[NewItem] = []
    row = None if item is None else _row(params, contents, f"{len(item.contents)}s")
    if row is not None:
        usual, fixed, split = row
        delay = template.delay
        for head, question, middle, each in split(_bytes_of(params.frame, count)):
            if head != usual or middle != fixed:
                break
            answers.append(question)
            items.append(_new(NewItem, (each, delay)))
    return answers, items


def _removes(params: Params, template: RemoveTemplate, count: int) -> tuple[list[AnswerId], list[tuple[bytes, bytes]]]:
    first = params.at * WORD
    before, behind = sorted((template.id, template.lease))
    answers: list[AnswerId] = []
    pairs: list[tuple[bytes, bytes]] = []
    row = None
    if read_alike_remove(params) is not None and before >= len(template.fixed) and behind - before >= ID_BYTES:
        row = _row(params, first + before, f"{ID_BYTES}s{behind - before - ID_BYTES}x{ID_BYTES}s")
    if row is not None:
        usual, fixed, split = row
        for head, question, middle, one, other in split(_bytes_of(params.frame, count)):
            if head != usual or middle != fixed:
                break
            answers.append(question)
            pairs.append((one, other))
        if template.lease < template.id:
            pairs = [(item, lease) for lease, item in pairs]
    return answers, pairs


def _row(params: Params, free: int, differs: str) -> tuple[bytes, bytes, Callable[[memoryview], Iterator[Any]]] | None:
    """
    What is the same in all calls like the first, whose parameters are *params*, and what takes such a row apart.

    Up to byte *free* all is the same but the question's number.  There lies what *differs*, as `struct` writes it;
    nobody looks at what comes behind that.
    """
    frame = params.frame
    begin, question = (frame.start - 1) * WORD, frame.start * WORD + QUESTION_AT
    behind = question + QUESTION_BYTES
    if free < frame.start * WORD + KEY_TO:
        return None
    split = _split(question - begin, free - behind, differs, _stride(frame) * WORD)
    return frame.data[begin:question], frame.data[behind:free], split.iter_unpack


@lru_cache(maxsize=256)
def _split(head: int, middle: int, differs: str, size: int) -> Struct:
    known = f"<{head}sI{middle}s{differs}"
    return Struct(f"{known}{size - calcsize(known)}x")
