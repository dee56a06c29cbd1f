"""Codecs of types with parts: unions, literals, lists, tuples, sets and mappings."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from types import UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

from queueber.tasks.codecs import SCALARS, Changing, Codec, Compile, Convert, Unfit, at_place, instance

_LISTS: Final[Mapping[Any, tuple[tuple[type, ...], Callable[[Iterable[Any]], Any]]]] = {
    list: ((list,), list),
    MutableSequence: ((list,), list),
    Sequence: ((list, tuple), list),
    Collection: ((list, tuple), list),
    Iterable: ((list, tuple), list),
    set: ((set,), set),
    frozenset: ((frozenset,), frozenset),
    AbstractSet: ((set, frozenset), set),
}
"""For each type of collections: the classes of its values, and the one that is made."""

_MAPPINGS: Final = (dict, Mapping, MutableMapping)


def builtin_codec(hint: Any, compiled: Compile) -> Codec | None:  # noqa: ANN401
    """
    Return the codec of *hint*, or None if it is neither a scalar, a collection, a union nor a literal.

    *compiled* returns the codecs of its parts.

    Raises:
        Unsupported: a part of it has no form in JSON.
    """
    try:
        known = SCALARS.get(hint)
    except TypeError:  # not hashable
        return None
    if known is not None:
        return known
    if isinstance(hint, TypeVar):
        return compiled(Any if hint.__bound__ is None else hint.__bound__)
    origin, args = get_origin(hint) or hint, get_args(hint)
    if origin is Literal:
        return _literal(args)
    if origin in (Union, UnionType):
        return _union([compiled(each) for each in args])
    return _collection(origin, args, compiled)


def _collection(origin: Any, args: tuple[Any, ...], compiled: Compile) -> Codec | None:  # noqa: ANN401
    if origin is tuple:
        return _tuple(args, compiled)
    if origin in _LISTS:
        kinds, make = _LISTS[origin]
        return _list(kinds, make, compiled(args[0] if args else Any))
    if origin in _MAPPINGS:
        keys, values = args or (str, Any)
        return _dict(keys, compiled(keys), compiled(values))
    return None


def _union(members: Sequence[Codec]) -> Codec:
    """Return the codec that uses the first member to accept a value, if that is also the first to accept its JSON."""

    def found(value: Any) -> tuple[int, Any]:  # noqa: ANN401
        for number, member in enumerate(members):
            try:
                return number, member.decode(value)
            except Unfit:
                continue
        raise Unfit(value, "of one of the types of the annotation")

    def encode(value: Any) -> Any:  # noqa: ANN401
        for number, member in enumerate(members):
            try:
                encoded = member.encode(value)
            except Changing:
                # No other member is of its type.
                raise
            except Unfit:
                continue
            if found(encoded)[0] != number:
                raise Unfit(value, "a value that JSON does not confuse with another type of the union")
            return encoded
        raise Unfit(value, "of one of the types of the annotation")

    return Codec(encode, lambda value: found(value)[1])


def _literal(values: Sequence[Any]) -> Codec:
    encoded = {(type(each), each): each.value if isinstance(each, Enum) else each for each in values}
    decoded = {(type(json), json): key[1] for key, json in encoded.items()}
    wanted = f"one of {', '.join(repr(each) for each in values)}"

    def look(table: Mapping[Any, Any]) -> Convert:
        def convert(value: Any) -> Any:  # noqa: ANN401
            try:
                return table[type(value), value]
            except (KeyError, TypeError):
                raise Unfit(value, wanted) from None

        return convert

    return Codec(look(encoded), look(decoded))


def each_of(convert: Convert, values: Iterable[Any]) -> Iterator[Any]:
    """Convert each of *values*; an `Unfit` has its place."""
    for place, value in enumerate(values):
        yield at_place(f"[{place}]", convert, value)


def _list(kinds: tuple[type, ...], make: Callable[[Iterable[Any]], Any], element: Codec) -> Codec:
    wanted = " or ".join(f"a {kind.__name__}" for kind in kinds)
    check, array = instance(kinds, wanted), instance(list, "an array")
    return Codec(
        lambda value: list(each_of(element.encode, check(value))),
        lambda value: make(each_of(element.decode, array(value))),
    )


def _tuple(args: tuple[Any, ...], compiled: Compile) -> Codec:
    if not args or args[-1] is Ellipsis:
        return _list((tuple,), tuple, compiled(args[0] if args else Any))
    elements = [compiled(each) for each in args]
    wanted = f"a tuple of length {len(elements)}"
    check, array = instance(tuple, wanted), instance(list, "an array")

    def encode(value: Any) -> list[Any]:  # noqa: ANN401
        parts = check(value)
        if len(parts) != len(elements):
            raise Unfit(value, wanted)
        return [
            at_place(f"[{at}]", codec.encode, each)
            for at, (codec, each) in enumerate(zip(elements, parts, strict=True))
        ]

    def decode(value: Any) -> tuple[Any, ...]:  # noqa: ANN401
        parts = array(value)
        if len(parts) != len(elements):
            raise Unfit(value, f"an array of length {len(elements)}")
        pairs = enumerate(zip(elements, parts, strict=True))
        return tuple(at_place(f"[{at}]", codec.decode, each) for at, (codec, each) in pairs)

    return Codec(encode, decode)


def _dict(hint: Any, keys: Codec, values: Codec) -> Codec:  # noqa: ANN401
    """Return the codec of mappings.  Keys that are numbers are written as text."""
    numbers = hint is int
    check, mapping = instance(Mapping, "a mapping"), instance(dict, "an object")
    text = instance(str, "text in JSON, as the key of a mapping")

    def encoded_key(key: Any) -> str:  # noqa: ANN401
        code = keys.encode(key)
        return str(int(code)) if numbers else text(code)

    def decoded_key(key: str) -> Any:  # noqa: ANN401
        if not numbers:
            return keys.decode(key)
        try:
            return int(key)
        except ValueError:
            raise Unfit(key, "an int, as the key of a mapping") from None

    return Codec(
        lambda value: {
            encoded_key(key): at_place(f"[{key!r}]", values.encode, each) for key, each in check(value).items()
        },
        lambda value: {
            decoded_key(key): at_place(f"[{key!r}]", values.decode, each) for key, each in mapping(value).items()
        },
    )
