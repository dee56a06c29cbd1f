"""Arguments of tasks as the contents of items: the interface of serializers, and JSON, the default."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from queueber.errors import InvalidRequest
from queueber.tasks.parameters import Parameters, Unrunnable

MEMBERS = {"args", "kwargs"}

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


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
            return _encode({"args": positional, "kwargs": named}).encode()
        except (ValueError, TypeError, RecursionError) as why:
            # Text with half a surrogate pair, an integer with thousands of digits, a list that contains itself.
            raise InvalidRequest(f"the arguments of task {parameters.task} cannot be encoded: {why}") from None

    def load(self, parameters: Parameters, contents: bytes) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """
        Return the arguments that *contents* has.

        Raises:
            Unrunnable: they are not JSON, or do not fit the function.
        """
        try:
            found = json.loads(contents)
        except (ValueError, RecursionError) as why:
            raise Unrunnable(f"the contents for task {parameters.task} are not JSON: {why}") from None
        if not isinstance(found, dict) or found.keys() - MEMBERS:
            raise Unrunnable(f'the contents for task {parameters.task} are not {{"args": […], "kwargs": {{…}}}}')
        args, kwargs = found.get("args", []), found.get("kwargs", {})
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise Unrunnable(f"the contents for task {parameters.task} have no array args and object kwargs")
        return parameters.decoded(args, kwargs)
