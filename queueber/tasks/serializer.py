"""Arguments of tasks as the contents of items: the interface of serializers, and JSON, the default."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from queueber.client_core.arguments import wrong
from queueber.errors import InvalidRequest, one_line
from queueber.tasks.codecs import Unfit
from queueber.tasks.parameters import NESTING_MAX, NOT_NESTED, Parameters, Unrunnable

MEMBERS = {"args", "kwargs"}

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_decode = json.JSONDecoder().raw_decode


class Serializer(Protocol):
    """
    Converts the arguments of a task to the contents of an item, and back.

    The arguments of `dump` fit the task's signature; those that `load` returns
    are checked by `Parameters.decoded`, or by the serializer in another way.
    An exception of `dump` refuses the add; one of `load` rejects the item.
    """

    @property
    def content_type(self) -> str:
        """The media type, which items carry as a header."""
        ...

    def dump(self, parameters: Parameters, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """Return the contents of an item."""
        ...

    def load(self, parameters: Parameters, contents: bytes) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return the arguments that *contents* has."""
        ...


def checked_serializer(name: str, value: Serializer) -> Serializer:
    """
    Return *value*, the argument *name*, unchanged.

    Raises:
        InvalidRequest: it lacks a method or a content type.
    """
    kind = getattr(value, "content_type", None)
    if isinstance(value, type) or not all(callable(getattr(value, each, None)) for each in ("dump", "load")):
        raise wrong(name, value, "an object with content_type, dump and load")
    if not isinstance(kind, str) or not kind.isascii() or not kind.isprintable() or not kind:
        raise wrong(f"content_type of {name}", kind, "text in ASCII, such as 'application/json'")
    return value


class JsonSerializer:
    """`{"args": [...], "kwargs": {...}}` as JSON in UTF-8, with values converted by the annotations of the function."""

    content_type = "application/json"

    def dump(self, parameters: Parameters, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """
        Return the contents of an item.

        Raises:
            InvalidRequest: a value cannot be encoded.  The text names task and argument.
        """
        positional, named = parameters.encoded(args, kwargs)
        try:
            text = _encode({"args": positional, "kwargs": named})
            contents = text.encode()
        except (ValueError, TypeError, RecursionError) as why:
            raise _unwritable(parameters, positional, named, why) from None
        # Each list and each object has a bracket, so that most contents need no second look.
        if text.count("[") + text.count("{") > NESTING_MAX:
            _check_nesting(parameters, positional, named)
        return contents

    def load(self, parameters: Parameters, contents: bytes) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """
        Return the arguments that *contents* has.

        Raises:
            Unrunnable: they are not JSON, or do not fit the function.
        """
        try:
            found = _decoded(contents)
        except (ValueError, RecursionError) as why:
            raise Unrunnable(f"the contents for task {parameters.task} are not JSON: {why}") from None
        if not isinstance(found, dict) or found.keys() - MEMBERS:
            raise Unrunnable(f'the contents for task {parameters.task} are not {{"args": […], "kwargs": {{…}}}}')
        args, kwargs = found.get("args", []), found.get("kwargs", {})
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise Unrunnable(f"in the contents for task {parameters.task}, args must be an array and kwargs an object")
        return parameters.decoded(args, kwargs)


def _decoded(contents: bytes) -> Any:  # noqa: ANN401
    """Return what `json.loads` does, with fewer calls if *contents* are UTF-8 without blanks around, as usual."""
    try:
        text = contents.decode()
        found, end = _decode(text)
    except ValueError:
        return json.loads(contents)
    return found if end == len(text) else json.loads(contents)


def _unwritable(
    parameters: Parameters, args: Sequence[Any], kwargs: Mapping[str, Any], why: Exception
) -> InvalidRequest:
    """Return the error for encoded arguments that *why* keeps from becoming text; it names the first one."""
    for name, value in parameters.named(args, kwargs):
        try:
            _encode({name: value}).encode()
        except UnicodeEncodeError as found:
            problem = f"has {found.object[found.start]!a}, which is half of a character; text must be UTF-8"
        except RecursionError:
            return InvalidRequest(parameters.why_unfit(Unfit(value, NOT_NESTED, name)))
        except (ValueError, TypeError) as found:
            # An integer with thousands of digits, or what a class has made of itself.
            problem = f"cannot be encoded: {found}"
        else:
            continue
        return InvalidRequest(one_line(f"argument {name} of task {parameters.task} {problem}"))
    return InvalidRequest(f"the arguments of task {parameters.task} cannot be encoded: {why}")


def _check_nesting(parameters: Parameters, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """
    Check the depth of encoded arguments.

    Raises:
        InvalidRequest: one has too many lists and objects in one another.
    """
    for name, value in parameters.named(args, kwargs):
        level, depth = [value], 0
        while level := [each for each in level if isinstance(each, list | dict)]:
            depth += 1
            level = [part for each in level for part in (each.values() if isinstance(each, dict) else each)]
        if depth > NESTING_MAX:
            raise InvalidRequest(parameters.why_unfit(Unfit(value, NOT_NESTED, name)))
