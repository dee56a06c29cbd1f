"""
Codecs of classes with fields: dataclasses, attrs, named tuples, typed dictionaries, pydantic models; and enumerations.

Objects become JSON objects by the names of their fields; the class itself is
not written, the annotation names it.  So an instance of a subclass is refused:
it would come back as the base class.  dataclasses, attrs and pydantic are only
looked at if the program has imported them.

Models may write fields in ways of their own, and a class may have fields that
its constructor does not take.  Both are made again when they are encoded, and
refused if a field has changed.
"""

import inspect
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, NamedTuple, NewType, TypeVar, get_origin, get_type_hints, is_typeddict

from queueber.tasks.codecs import Changing, Codec, Compile, Convert, Unfit, Unsupported, at_place, instance
from queueber.tasks.container_codecs import builtin_codec

T = TypeVar("T")


class Compiler:
    """The codecs of annotations, each compiled once."""

    def __init__(self) -> None:
        self._codecs: dict[Any, Codec] = {}

    def compiled(self, hint: Any) -> Codec:  # noqa: ANN401
        """
        Return the codec of *hint*.

        Raises:
            Unsupported: it, or a part of it, has no form in JSON.  The text names it.
        """
        try:
            known = self._codecs.get(hint)
        except TypeError:
            return self._compile(hint)
        if known is not None:
            return known
        # A class may have fields of its own type, which find this codec before it is complete.
        self._codecs[hint] = codec = Codec(_incomplete, _incomplete)
        try:
            made = self._compile(hint)
        except BaseException:
            del self._codecs[hint]
            raise
        codec.encode, codec.decode, codec.plain = made.encode, made.decode, made.plain
        return codec

    def _compile(self, hint: Any) -> Codec:  # noqa: ANN401
        if isinstance(hint, NewType):
            return self.compiled(hint.__supertype__)
        if hasattr(hint, "__value__") and hasattr(hint, "__type_params__"):  # a `type` statement
            return self.compiled(hint.__value__)
        if get_origin(hint) is not None and hasattr(hint, "__metadata__"):
            return self.compiled(hint.__origin__)
        found = builtin_codec(hint, self.compiled)
        if found is not None:
            return found
        kind = get_origin(hint) or hint
        if not isinstance(kind, type):
            raise Unsupported(f"{hint!r} has no form in JSON")
        return _class_codec(kind, self.compiled)


def _incomplete(value: Any) -> Any:  # noqa: ANN401
    raise AssertionError(f"a codec was used while it was compiled: {value!r}")


def _class_codec(kind: type, compiled: Compile) -> Codec:
    if issubclass(kind, Enum):
        return _enum(kind)
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and issubclass(kind, pydantic.BaseModel):
        return _model(kind)
    if is_typeddict(kind):
        return _typed_dict(kind, compiled)
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _object(kind, [_Field(name, name) for name in kind._fields], compiled)
    dataclasses = sys.modules.get("dataclasses")
    if dataclasses is not None and dataclasses.is_dataclass(kind):
        every = dataclasses.fields(kind)
        fields = [_Field(each.name, each.name) for each in every if each.init]
        return _object(kind, fields, compiled, [each.name for each in every if each.compare and not each.init])
    attrs = sys.modules.get("attr")  # which the package attrs imports
    if attrs is not None and attrs.has(kind):
        found = [_Field(each.name, each.alias or each.name) for each in attrs.fields(kind) if each.init]
        return _object(kind, found, compiled, [each.name for each in attrs.fields(kind) if each.eq and not each.init])
    raise Unsupported(
        f"{kind.__module__}.{kind.__qualname__} has no form in JSON; a dataclass, or an attrs or pydantic class, would"
    )


def _enum(kind: type[Enum]) -> Codec:
    """Return the codec of an enumeration: by values if all are text or integers, else by names."""
    wanted = f"a {kind.__name__}"
    check = instance(kind, wanted)
    by_value = all(isinstance(each.value, str | int) for each in kind)

    def decode(value: Any) -> Any:  # noqa: ANN401
        try:
            return kind(value) if by_value else kind[value]
        except (ValueError, KeyError, TypeError):
            raise Unfit(value, f"the {'value' if by_value else 'name'} of {wanted}") from None

    return Codec(lambda value: check(value).value if by_value else check(value).name, decode)


def _model(kind: Any) -> Codec:  # noqa: ANN401
    check = _exactly(kind)

    def encode(value: Any) -> Any:  # noqa: ANN401
        found = check(value).model_dump(mode="json", by_alias=True, round_trip=True)
        try:
            arrived = decode(found)
        except Unfit as why:
            raise Changing(value, f"a {kind.__name__} that can be made from its JSON again: {why}") from None
        _check_unchanged(value, arrived, _parts(kind))
        return found

    def decode(value: Any) -> Any:  # noqa: ANN401
        try:
            # From JSON text, so that models in strict mode accept dates and the like.
            return kind.model_validate_json(json.dumps(value))
        except ValueError as why:
            raise Unfit(value, f"the fields of a {kind.__name__}: {' '.join(str(why).split())}") from None

    return Codec(encode, decode)


def _check_unchanged(value: Any, arrived: Any, names: Iterable[str]) -> None:  # noqa: ANN401
    """
    Check the fields *names* of *arrived*, which *value* was made into and back.

    Raises:
        Changing: one has changed.
    """
    for name in names:
        if not _alike(getattr(value, name, None), getattr(arrived, name, None)):
            raise Changing(value, f"one that arrives as it is; its field {name} would change")


def _parts(kind: Any) -> Iterable[str]:  # noqa: ANN401
    """Return the names of a model's attributes that are its value."""
    return (*kind.model_fields, "model_extra")


def _alike(one: Any, other: Any) -> bool:  # noqa: ANN401
    """Return whether two values of a field are equal, whatever a class or a time zone takes for equal."""
    if type(one) is not type(other):
        # As 2 for a float.
        return bool(one == other)
    if hasattr(one, "model_fields_set"):
        return all(_alike(getattr(one, name, None), getattr(other, name, None)) for name in _parts(type(one)))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_alike(each, other[key]) for key, each in one.items())
    if isinstance(one, datetime) and one.tzinfo is not None and other.tzinfo is not None:
        # In an hour that its clock shows twice, a moment of one zone never equals that of another.
        return bool(one.astimezone(UTC) == other.astimezone(UTC))
    return bool(one == other)


class _Field(NamedTuple):
    """A field of a class."""

    name: str
    """The name of the attribute, and in JSON."""

    argument: str
    """The name in the constructor."""


def _exactly(kind: type) -> Convert:
    def check(value: Any) -> Any:  # noqa: ANN401
        if type(value) is kind:
            return value
        raise Unfit(value, f"a {kind.__name__}, and not of a subclass")

    return check


def _hints(kind: type) -> Mapping[str, Any]:
    try:
        return get_type_hints(kind)
    except (NameError, AttributeError, TypeError) as why:
        raise Unsupported(f"an annotation of {kind.__qualname__} cannot be resolved: {why}") from None


def _object(
    kind: Any,  # noqa: ANN401
    fields: Sequence[_Field],
    compiled: Compile,
    others: Sequence[str] = (),
) -> Codec:
    """
    Return the codec of a class that is made from *fields*; its *others* must be as the constructor sets them.

    Raises:
        Unsupported: the constructor needs more, or a field's type has no form in JSON.
    """
    hints = _hints(kind)
    arguments = {each.argument for each in fields}
    for parameter in inspect.signature(kind).parameters.values():
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not variadic and parameter.name not in arguments:
            raise Unsupported(f"{kind.__qualname__} cannot be made from its fields: {parameter.name} is none of them")
    codecs = {each.name: _field_codec(kind, each, hints, compiled) for each in fields}
    check, mapping, wanted = _exactly(kind), instance(dict, "an object"), f"the fields of a {kind.__name__}"

    def encode(value: Any) -> dict[str, Any]:  # noqa: ANN401
        check(value)
        found = {name: at_place(f".{name}", codec.encode, getattr(value, name)) for name, codec in codecs.items()}
        if others:
            _check_unchanged(value, decode(found), others)
        return found

    def decode(value: Any) -> Any:  # noqa: ANN401
        found = mapping(value)
        if strange := sorted(found.keys() - codecs.keys()):
            raise Unfit(value, f"{wanted}, which has no {strange[0]}")
        given = {
            each.argument: at_place(f".{each.name}", codecs[each.name].decode, found[each.name])
            for each in fields
            if each.name in found
        }
        try:
            return kind(**given)
        except Exception as why:  # noqa: BLE001  (the constructor's own checks)
            raise Unfit(value, f"{wanted}: {why}") from None

    return Codec(encode, decode)


def _field_codec(kind: type, field: _Field, hints: Mapping[str, Any], compiled: Compile) -> Codec:
    try:
        return compiled(hints.get(field.name, Any))
    except Unsupported as why:
        raise Unsupported(f"{kind.__qualname__}.{field.name}: {why}") from None


def _typed_dict(kind: Any, compiled: Compile) -> Codec:  # noqa: ANN401
    codecs = {
        name: _field_codec(kind, _Field(name, name), {name: hint}, compiled) for name, hint in _hints(kind).items()
    }
    check = instance(dict, f"a dict with the keys of {kind.__name__}")

    def convert(value: Any, *, encoding: bool) -> dict[str, Any]:  # noqa: ANN401
        found = check(value)
        if strange := [key for key in found if key not in codecs]:
            raise Unfit(value, f"a {kind.__name__}, which has no {strange[0]}")
        if missing := sorted(kind.__required_keys__ - found.keys()):
            raise Unfit(value, f"a {kind.__name__}, which has {missing[0]}")
        return {
            name: at_place(f"[{name!r}]", codecs[name].encode if encoding else codecs[name].decode, each)
            for name, each in found.items()
        }

    return Codec(lambda value: convert(value, encoding=True), lambda value: convert(value, encoding=False))
