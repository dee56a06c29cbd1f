"""
Messages of one length that lie in a row and differ in little: taken in together.

A client that keeps many calls under way sends many at a time, and most of what
they cost one by one is objects and steps of Python's.  The first of a row is
read as ever; of the others all that was looked at in the first is compared
with it, bytes with bytes, and only what may differ is taken out: the
question's number, and an item's contents, or its id and the lease.  The row
ends with the first that is not so.  So a row never says anything that reading
its messages one by one would not say.

A row may have others between its messages: a client that sends each next call
behind the Finish of one that was answered has two rows, one in the other.
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

MOST: Final = 128
"""No more are looked at together: what is not alike in the end is looked at again."""

_HEADER: Final = WORD
"""The table of a message of one segment."""

_QUESTION: Final = _HEADER + QUESTION_AT
"""Where a message has the question's number, if it is a Call or a Finish."""

_BITS_32: Final = (1 << 32) - 1

_new: Final = tuple.__new__
"""Makes a named tuple out of a plain one, in a third of the time that its class takes."""


@define(eq=False)
class Row:
    """Messages of one length, each so many words behind the one before; as many words are there for the last, too."""

    first: Frame
    stride: int
    count: int

    @property
    def words(self) -> int:
        """From the first to behind the last, with what is between them."""
        return self.stride * self.count

    @property
    def bytes(self) -> memoryview:
        """The same, as bytes."""
        at = (self.first.start - 1) * WORD
        return memoryview(self.first.data)[at : at + self.words * WORD]

    def until(self, count: int) -> "Row":
        """The first *count* of them."""
        return Row(self.first, self.stride, count)


@define(eq=False)
class RunParams(Sequence[Params]):
    """The parameters of the calls of a run, each made when it is asked for, which is seldom."""

    _first: Params
    _stride: int
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
        further = index * self._stride
        start, end = frame.start + further, frame.end + further
        budget = frame.factor * _length(frame)
        apart = Frame(frame.data, frame.words, start, end, None, budget, frame.factor)
        return Params(apart, first.at + further, start, end, first.shape)


@define(eq=False)
class Run:
    """Calls of one method of one object, one after the other."""

    answers: list[AnswerId]
    requests: list[NewItem] | list[tuple[bytes, bytes]]
    """What each adds, or the id and the lease of what it removes."""

    params: RunParams


def row_of(frame: Frame) -> Row:
    """The row that *frame*, which came over a stream, begins: at least itself."""
    length = _length(frame)
    return Row(frame, length, 1 if frame.segments else _alike(frame.words, frame.start - 1, length))


def rows_of(frame: Frame) -> tuple[Row, Row] | None:
    """The two rows, one in the other, that begin with *frame* and the message behind it; None if these are none."""
    words, second = frame.words, frame.end
    header = words[second]
    end = second + 1 + (header >> 32)
    if frame.segments or header & _BITS_32 or end >= len(words) or words[end] != words[frame.start - 1]:
        return None
    stride = end - frame.start + 1
    count = min(_alike(words, frame.start - 1, stride), _alike(words, second, stride))
    behind = Frame(frame.data, words, second + 1, end, None, frame.factor * (end - second), frame.factor)
    return Row(frame, stride, count), Row(behind, stride, count)


def _alike(words: Sequence[int], at: int, stride: int) -> int:
    """How many messages have the table that is at word *at*, each *stride* words behind the one before."""
    header, most = words[at], min(MOST, (len(words) - at) // stride)
    for count, each in enumerate(words[at : at + most * stride : stride]):
        if each != header:
            return count
    return most


def _length(frame: Frame) -> int:
    """Of a message with its table, in words."""
    return frame.end - frame.start + 1


def finishes_in(row: Row) -> list[AnswerId]:
    """What each Finish is for of those that begin *row*; none if its first message is something else."""
    frame = row.first
    if not begins_as_finish(frame):
        return []
    first = (frame.start - 1) * WORD
    usual = frame.data[first : first + _QUESTION]
    found: list[AnswerId] = []
    for head, question in _finishes(row.stride).iter_unpack(row.bytes):
        if head != usual:
            break
        found.append(question)
    return found


@lru_cache(maxsize=256)
def _finishes(stride: int) -> Struct:
    """Finishes up to the question's number, and that number."""
    return Struct(f"<{_QUESTION}sI{stride * WORD - _QUESTION - QUESTION_BYTES}x")


def uses_early(answers: Sequence[AnswerId], finishes: Sequence[AnswerId]) -> bool:
    """Whether a call of a row, each behind its Finish, has the number of a later Finish."""
    if set(answers).isdisjoint(finishes):
        return False
    places = {answer: place for place, answer in enumerate(finishes)}
    return any(places.get(answer, place) > place for place, answer in enumerate(answers))


def calls_in(row: Row, shape: Shape, limits: Limits) -> Run | None:
    """The calls that begin *row* and are like its first message, which has *shape*; None for too few."""
    frame, template = row.first, shape.template
    params = Params(frame, frame.start + shape.at, frame.start, frame.end, shape)
    answers: list[AnswerId]
    requests: list[NewItem] | list[tuple[bytes, bytes]]
    if type(template) is AddTemplate:
        answers, requests = _adds(params, template, row, limits)
    elif type(template) is RemoveTemplate:
        answers, requests = _removes(params, template, row)
    else:
        return None
    return Run(answers, requests, RunParams(params, row.stride, len(answers))) if len(answers) >= LEAST else None


def _adds(params: Params, template: AddTemplate, row: Row, limits: Limits) -> tuple[list[AnswerId], list[NewItem]]:
    item = read_alike_add(params, limits)
    contents = (params.at + template.words + 1) * WORD
    answers: list[AnswerId] = []
    items: list[NewItem] = []
    known = None if item is None else _known(params, row.stride, contents, f"{len(item.contents)}s")
    if known is not None:
        usual, fixed, split = known
        delay = template.delay
        for head, question, middle, each in split(row.bytes):
            if head != usual or middle != fixed:
                break
            answers.append(question)
            items.append(_new(NewItem, (each, delay)))
    return answers, items


def _removes(params: Params, template: RemoveTemplate, row: Row) -> tuple[list[AnswerId], list[tuple[bytes, bytes]]]:
    first = params.at * WORD
    before, behind = sorted((template.id, template.lease))
    answers: list[AnswerId] = []
    pairs: list[tuple[bytes, bytes]] = []
    known = None
    if read_alike_remove(params) is not None and before >= len(template.fixed) and behind - before >= ID_BYTES:
        known = _known(params, row.stride, first + before, f"{ID_BYTES}s{behind - before - ID_BYTES}x{ID_BYTES}s")
    if known is not None:
        usual, fixed, split = known
        for head, question, middle, one, other in split(row.bytes):
            if head != usual or middle != fixed:
                break
            answers.append(question)
            pairs.append((one, other))
        if template.lease < template.id:
            pairs = [(item, lease) for lease, item in pairs]
    return answers, pairs


def _known(
    params: Params, stride: int, free: int, differs: str
) -> tuple[bytes, bytes, Callable[[memoryview], Iterator[Any]]] | None:
    """
    What is the same in all calls like the first, whose parameters are *params*, and what takes such a row apart.

    Up to byte *free* all is the same but the question's number.  There lies what *differs*, as `struct` writes it;
    nobody looks at what comes behind that.
    """
    frame = params.frame
    begin = (frame.start - 1) * WORD
    question, behind = begin + _QUESTION, begin + _QUESTION + QUESTION_BYTES
    if free < frame.start * WORD + KEY_TO:
        return None
    split = _split(question - begin, free - behind, differs, stride * WORD)
    return frame.data[begin:question], frame.data[behind:free], split.iter_unpack


@lru_cache(maxsize=256)
def _split(head: int, middle: int, differs: str, size: int) -> Struct:
    row = f"<{head}sI{middle}s{differs}"
    return Struct(f"{row}{size - calcsize(row)}x")
