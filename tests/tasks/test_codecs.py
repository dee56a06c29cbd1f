"""Values of annotated parameters come back from JSON as they were, or are refused."""

import json
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, TypedDict, TypeVar, Union
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, field_serializer

from queueber.tasks.class_codecs import Compiler
from queueber.tasks.codecs import Unfit, Unsupported


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Shape(Enum):
    ROUND = (1, 2)
    FLAT = None


class Size(IntEnum):
    SMALL = 1


class Kind(StrEnum):
    A = "a"


class Mode(Flag):
    R = 1
    W = 2


@dataclass(frozen=True)
class Line:
    sku: UUID
    price: Decimal
    count: int = 1
    notes: str = field(default="", init=False)


@dataclass(frozen=True)
class SpecialLine(Line):
    gift: bool = True


@dataclass
class Tree:
    name: str
    children: list["Tree"] = field(default_factory=list)


@attrs.frozen
class Order:
    lines: tuple[Line, ...]
    _secret: bytes = b""
    due: datetime | None = None


class Point(NamedTuple):
    x: float
    y: float = 0.0


class Address(TypedDict):
    street: str
    since: NotRequired[date]


class Customer(BaseModel):
    model_config = ConfigDict(strict=True)

    name: str = Field(alias="fullName")
    born: date | None = None


class Login(BaseModel):
    password: SecretStr


class OpenLogin(Login):
    @field_serializer("password", when_used="json")
    def _reveal(self, value):
        return value.get_secret_value()


class Note(BaseModel):
    model_config = ConfigDict(extra="allow")

    text: str = ""
    hidden: int = Field(default=2, exclude=True)
    about: Any = None
    at: datetime | None = None
    parts: list["Note"] = []
    _made: object = PrivateAttr(default_factory=object)


class Needy(BaseModel):
    hidden: int = Field(exclude=True)


@dataclass
class Counted:
    x: int
    count: int = field(init=False, default=0)
    cache: object = field(init=False, compare=False, repr=False, default_factory=object)


@attrs.define
class CountedToo:
    x: int
    count: int = attrs.field(init=False, default=0)
    cache: object = attrs.field(init=False, eq=False, repr=False, factory=object)


def changed(value, **fields):
    for name, each in fields.items():
        setattr(value, name, each)
    return value


@dataclass
class Unreadable:
    other: "Nowhere"  # noqa: F821


class Handle:
    pass


UserId = NewType("UserId", UUID)
T = TypeVar("T", bound=date)
BERLIN = timezone(timedelta(hours=1))
NAIVE = datetime.fromisoformat("2026-03-29T01:30:00.123456")
TWICE = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
"""In the hour that is repeated."""

SKU = UUID("12345678123456781234567812345678")


def there_and_back(hint, value):
    codec = Compiler().compiled(hint)
    return codec.decode(json.loads(json.dumps(codec.encode(value), allow_nan=False)))


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Any, {"a": [1, 2.5, None, True, "x", {"b": []}]}),
        (object, "x"),
        (None, None),
        (bool, True),
        (int, 10**400),
        (float, 2.5),
        (float, 2),
        (str, "ä\N{GRINNING FACE}"),
        (bytes, bytes(range(256))),
        (datetime, datetime(2026, 3, 29, 1, 30, tzinfo=BERLIN)),
        (datetime, NAIVE),
        (date, date(2026, 2, 28)),
        (time, time(23, 59, 59, 1, tzinfo=UTC)),
        (timedelta, timedelta(days=-3, microseconds=1)),
        (UUID, SKU),
        (UserId, UserId(SKU)),
        (Decimal, Decimal("0.10")),
        (Colour, Colour.RED),
        (Shape, Shape.FLAT),
        (Size, Size.SMALL),
        (Kind, Kind.A),
        (Mode, Mode.R | Mode.W),
        (Literal["a", 1, True, Colour.RED], 1),
        (Literal["a", 1, True, Colour.RED], True),
        (Literal["a", 1, True, Colour.RED], Colour.RED),
        (date | None, None),
        (date | None, date(2026, 1, 1)),
        (int | str, "1"),
        (Union[datetime, str], "tomorrow"),  # noqa: UP007  (both spellings)
        (list[int] | list[date], [date(2026, 1, 1)]),
        (list, [1, [2]]),
        (list[UUID], [SKU]),
        (Sequence[int], [1, 2]),
        (tuple[int, date], (1, date(2026, 1, 1))),
        (tuple[int, ...], (1, 2, 3)),
        (tuple, (1, "a")),
        (set[date], {date(2026, 1, 1)}),
        (frozenset[int], frozenset({1})),
        (AbstractSet[int], {1}),
        (dict[str, Decimal], {"a": Decimal(1)}),
        (dict, {"a": 1}),
        (dict[int, str], {-1: "a"}),
        (Mapping[UUID, list[date]], {SKU: [date(2026, 1, 1)]}),
        (dict[Colour, int], {Colour.RED: 1}),
        (Line, Line(SKU, Decimal("1.50"), 3)),
        (Tree, Tree("a", [Tree("b", [Tree("c")])])),
        (Order, Order((Line(SKU, Decimal(1)),), b"\0", datetime(2026, 1, 1, tzinfo=UTC))),
        (Point, Point(1.5, 2.5)),
        (Address, {"street": "a", "since": date(2026, 1, 1)}),
        (Address, {"street": "a"}),
        (Customer, Customer(fullName="Ann", born=date(1990, 1, 1))),
        (list[Customer], [Customer(fullName="Ann")]),
        (OpenLogin, OpenLogin(password=SecretStr("hunter2"))),
        (Counted, Counted(1)),
        (CountedToo, CountedToo(1)),
        (Annotated[date, "a note"], date(2026, 1, 1)),
        (T, date(2026, 1, 1)),
    ],
    ids=repr,
)
def test_values_come_back_with_their_types(hint, value):
    found = there_and_back(hint, value)
    assert found == value
    assert type(found) is type(value)


def test_a_model_may_have_what_is_no_field_and_a_moment_that_the_clock_shows_twice():
    value = Note(text="a", at=TWICE, parts=[Note(at=TWICE)], more=[1], about={"at": [1]})
    found = there_and_back(Note, value)
    assert (found.text, found.at.astimezone(UTC), found.more) == ("a", TWICE.astimezone(UTC), [1])


def test_tuples_without_an_annotation_come_back_as_lists():
    assert there_and_back(Any, (1, (2,))) == [1, [2]]


@pytest.mark.parametrize(
    ("hint", "value", "text"),
    [
        (Any, NAIVE, "because the annotation names no type; annotate the parameter"),
        (Any, {"a": [1, {2}]}, "{2} (set) at ['a'][1]; it must be None, a bool"),
        (Any, {1: 2}, "1 (int); it must be a str, as the key of a dict"),
        (Any, Colour.RED, "annotate the parameter"),
        (Any, math.nan, "nan (float); it must be a finite number"),
        (float, math.inf, "inf (float); it must be a finite number"),
        (float, "1", "'1' (str); it must be a float"),
        (int, "1", "'1' (str); it must be an int"),
        (int, 1.0, "1.0 (float); it must be an int"),
        (str, None, "None; it must be a str"),
        (bytes, "x", "'x' (str); it must be bytes"),
        (date, NAIVE, "it must be a date without time"),
        (datetime, date(2026, 1, 1), "it must be a datetime"),
        (timedelta, timedelta(days=99_421, microseconds=1), "a timedelta that a number of seconds holds to the micro"),
        (list[int], (1,), "(1,) (tuple); it must be a list"),
        (list[date], [date(2026, 1, 1), "x"], "'x' (str) at [1]; it must be a date without time"),
        (tuple[int, str], (1,), "it must be a tuple of length 2"),
        (tuple[int, str], (1, 2), "2 (int) at [1]; it must be a str"),
        (dict[str, int], {"a": "b"}, "'b' (str) at ['a']; it must be an int"),
        (dict[float, int], {1.5: 2}, "it must be text in JSON, as the key of a mapping"),
        (Literal["a"], "b", "'b' (str); it must be one of 'a'"),
        (Literal["a"], [], "it must be one of 'a'"),
        (int | None, "x", "it must be of one of the types of the annotation"),
        (str | date, date(2026, 1, 1), "a value that JSON does not confuse with another type of the union"),
        (datetime | str, "2026-01-01", "a value that JSON does not confuse with another type of the union"),
        (Line, SpecialLine(SKU, Decimal(1)), "it must be a Line, and not of a subclass"),
        (Line, Line("x", Decimal(1)), "'x' (str) at .sku; it must be a UUID"),
        (Tree, Tree("a", [Tree("b", [Tree(1)])]), "1 (int) at .children[0].children[0].name; it must be a str"),
        (Address, {"street": "a", "zip": 1}, "it must be a Address, which has no zip"),
        (Address, {}, "it must be a Address, which has street"),
        (Customer, {"name": "x"}, "it must be a Customer"),
        (Login, Login(password=SecretStr("hunter2")), "one that arrives as it is; its field password would change"),
        (
            list[Login] | None,
            [Login(password=SecretStr("x"))],
            "at [0]; it must be one that arrives as it is; its field pa",
        ),
        (Note, Note(hidden=7), "its field hidden would change"),
        (Note, Note(about=(1, 2)), "its field about would change"),
        (Note, Note(parts=[Note(hidden=7)]), "its field parts would change"),
        (Note, Note(more=date(2026, 1, 1)), "its field model_extra would change"),
        (Needy, Needy(hidden=1), "a Needy that can be made from its JSON again: "),
        (Counted, changed(Counted(1), count=9), "its field count would change"),
        (CountedToo, changed(CountedToo(1), count=9), "its field count would change"),
        (list[Counted], [Counted(1), changed(Counted(1), count=9)], " at [1]; it must be one that arrives as it is"),
        (str, Kind.A, "it must be a str"),
        (int, Size.SMALL, "it must be an int"),
        (float, Size.SMALL, "it must be a float"),
        (time, time(1, tzinfo=ZoneInfo("Europe/Berlin")), "or with one that has the same UTC offset on all days"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_values_that_would_change_are_refused_with_their_place(hint, value, text):
    with pytest.raises(Unfit) as caught:
        Compiler().compiled(hint).encode(value)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("hint", "value", "text"),
    [
        (datetime, "tomorrow", "'tomorrow' (str); it must be text of a datetime"),
        (datetime, 5, "5 (int); it must be text of a datetime"),
        (UUID, "x", "text of a UUID"),
        (Decimal, "x", "text of a Decimal"),
        (bytes, "?", "text of bytes"),
        (timedelta, 1e300, "a number of seconds that fits a timedelta"),
        (Colour, "green", "the value of a Colour"),
        (Shape, [], "the name of a Shape"),
        (set[int], {}, "it must be an array"),
        (tuple[int, int], [1], "an array of length 2"),
        (dict[int, int], {"x": 1}, "an int, as the key of a mapping"),
        (dict[str, date], {"a": "x"}, "at ['a']; it must be text of a date"),
        (Line, {"sku": str(SKU), "price": "1", "colour": "red"}, "the fields of a Line, which has no colour"),
        (Line, {"sku": str(SKU)}, "the fields of a Line: "),
        (Line, [], "it must be an object"),
        (Customer, {"fullName": 1}, "the fields of a Customer: 1 validation error"),
        (int | date, "x", "of one of the types of the annotation"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_json_that_does_not_fit_is_refused(hint, value, text):
    with pytest.raises(Unfit) as caught:
        Compiler().compiled(hint).decode(value)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (Handle, "test_codecs.Handle has no form in JSON; a dataclass, or an attrs or pydantic class, would"),
        (list[Handle], "Handle has no form in JSON"),
        (type[int], "has no form in JSON"),
        ("x", "'x' has no form in JSON"),
        (Unreadable, "an annotation of Unreadable cannot be resolved: name 'Nowhere' is not defined"),
    ],
    ids=repr,
)
def test_annotations_that_stand_for_no_json_are_refused(hint, text):
    with pytest.raises(Unsupported) as caught:
        Compiler().compiled(hint)
    assert text in str(caught.value)


def test_a_class_that_needs_more_than_its_fields_is_refused():
    @dataclass
    class Derived:
        total: int = field(init=False)

        def __init__(self, parts):
            self.total = sum(parts)

    with pytest.raises(Unsupported, match="cannot be made from its fields: parts is none of them"):
        Compiler().compiled(Derived)


def test_a_class_is_compiled_again_after_a_part_of_it_was_refused():
    @dataclass
    class Holder:
        handle: Handle

    compiler = Compiler()
    for _ in range(2):
        with pytest.raises(Unsupported, match=r"Holder\.handle: "):
            compiler.compiled(Holder)


def test_a_number_that_python_does_not_print_is_refused_all_the_same():
    with pytest.raises(Unfit, match=r"an object \(int\); it must be a str"):
        Compiler().compiled(str).encode(10**5_000)


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON_LIKE)
def test_plain_values_come_back_without_annotations(value):
    assert there_and_back(Any, value) == value


@given(st.datetimes(timezones=st.none() | st.timezones()), st.timedeltas(), st.decimals(allow_nan=False), st.binary())
def test_all_moments_spans_and_decimals_come_back(moment, span, number, data):
    found = there_and_back(datetime, moment)
    assert found == moment or moment.fold or moment.tzinfo is not None
    assert found.utcoffset() == moment.utcoffset()
    assert there_and_back(Decimal, number) == number
    assert there_and_back(bytes, data) == data
    try:
        assert there_and_back(timedelta, span) == span
    except Unfit:
        assert abs(span) > timedelta(days=36_525)
