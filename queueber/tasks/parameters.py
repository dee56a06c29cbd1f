"""The parameters of a task's function: arguments are checked against them, and converted by their annotations."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar, get_type_hints

from queueber.errors import InvalidRequest
from queueber.tasks.class_codecs import Compiler
from queueber.tasks.codecs import Codec, Unfit, Unsupported

T = TypeVar("T")


class Unrunnable(Exception):
    """An item that no attempt will run.  The text is one sentence, for the item's last error."""


class Parameters:
    """
    The parameters of one task.

    Annotations are looked at when the first arguments are converted, because
    they may name what is defined later in the module.
    """

    def __init__(self, task: str, function: Callable[..., Any]) -> None:
        self.task = task
        """The task's name."""

        self._function = function
        self.signature = inspect.signature(function)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """
        Check that the function can be called so.

        Raises:
            InvalidRequest: it cannot.
        """
        try:
            self._bind(args, kwargs)
        except TypeError as why:
            raise InvalidRequest(f"task {self.task}{self.signature}: {why}") from None

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """
        Check that the function can be called so.

        Raises:
            TypeError: it cannot.
        """
        # The usual case first: `bind` takes longer than all the rest.
        if kwargs or len(args) not in self._positional:
            self.signature.bind(*args, **kwargs)

    @cached_property
    def _positional(self) -> range:
        """The numbers of arguments with which the function can be called if none is named."""
        found = list(self.signature.parameters.values())
        if any(each.kind is each.KEYWORD_ONLY and each.default is each.empty for each in found):
            return range(0)
        by_place = [each for each in found if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
        return range(sum(each.default is each.empty for each in by_place), len(by_place) + 1)

    def encoded(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """
        Return checked arguments in a form that the `json` module can write.

        Raises:
            InvalidRequest: one does not fit its annotation, or its annotation stands for no JSON.
        """
        try:
            return self._converted(args, kwargs, encoding=True)
        except Unfit as why:
            raise InvalidRequest(f"argument {why.path} of task {self.task} is {_without_path(why)}") from None

    def decoded(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """
        Return the arguments that `encoded` was given.

        Raises:
            Unrunnable: they do not fit the function as it is now.
        """
        try:
            self._bind(args, kwargs)
        except TypeError as why:
            raise Unrunnable(f"the arguments do not fit task {self.task}{self.signature}: {why}") from None
        try:
            return self._converted(args, kwargs, encoding=False)
        except Unfit as why:
            raise Unrunnable(f"argument {why.path} of task {self.task} is {_without_path(why)}") from None
        except InvalidRequest as why:
            raise Unrunnable(str(why)) from None

    def _converted(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], *, encoding: bool
    ) -> tuple[list[Any], dict[str, Any]]:
        positional, named = self._codecs
        last = len(positional) - 1
        found, by_name, at = [], {}, ""
        try:
            for place, value in enumerate(args):
                at, codec = positional[min(place, last)]
                found.append(codec.encode(value) if encoding else codec.decode(value))
            for name, value in kwargs.items():
                at, codec = name, named.get(name) or named["**"]
                by_name[name] = codec.encode(value) if encoding else codec.decode(value)
        except Unfit as why:
            raise why.within(at) from None
        return found, by_name

    @cached_property
    def _codecs(self) -> tuple[list[tuple[str, Codec]], dict[str, Codec]]:
        """
        The codecs by position, the last of them for all further arguments, and by name, "**" for all other names.

        Raises:
            InvalidRequest: an annotation cannot be resolved, or stands for no JSON.
        """
        hints, compiler = self._hints(), Compiler()
        positional: list[tuple[str, Codec]] = []
        named: dict[str, Codec] = {}
        for name, parameter in self.signature.parameters.items():
            try:
                codec = compiler.compiled(hints.get(name, Any))
            except Unsupported as why:
                raise InvalidRequest(f"the annotation of argument {name} of task {self.task}: {why}") from None
            if parameter.kind is parameter.VAR_KEYWORD:
                named["**"] = codec
                continue
            if parameter.kind is not parameter.KEYWORD_ONLY:
                positional.append((name, codec))
            if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                named[name] = codec
        return positional, named

    def _hints(self) -> dict[str, Any]:
        function = inspect.unwrap(self._function)

        def without_result() -> None: ...

        # The annotation of the result is not needed, and may name what is imported only for type checkers.
        try:
            found = dict(getattr(function, "__annotations__", {}))
            found.pop("return", None)
            without_result.__annotations__ = found
            return get_type_hints(without_result, globalns=getattr(function, "__globals__", {}))
        except (NameError, AttributeError, TypeError, SyntaxError) as why:
            raise InvalidRequest(
                f"the annotations of task {self.task} cannot be resolved: {why}; "
                "its types must be imported when the program runs, not only for type checkers"
            ) from None


def _without_path(why: Unfit) -> str:
    return f"{why.described}; it must be {why.wanted}"
