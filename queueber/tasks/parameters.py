"""The parameters of a task's function: arguments are checked against them, and converted by their annotations."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Final, TypeVar, get_type_hints

from queueber.errors import InvalidRequest, one_line
from queueber.tasks.class_codecs import Compiler
from queueber.tasks.codecs import Codec, Unfit, Unsupported

T = TypeVar("T")

NESTING_MAX: Final = 100
"""
The deepest nesting of lists and objects in an argument.

Each takes some calls of Python to convert, and a worker's stack is to have room for what a program's stack had.
"""


NOT_NESTED: Final = f"no deeper than {NESTING_MAX} lists or objects in one another, and must not contain itself"


class Unrunnable(Exception):
    """An item that cannot be run.  The text becomes the item's last error."""


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """
    Return whether *function*, which becomes a task, is a coroutine function.

    Raises:
        InvalidRequest: it is neither that nor a plain function: a class, a generator, or nothing that can be called.
    """
    if not callable(function):
        raise InvalidRequest(f"{function!r} is not a function; write @app.task, or @app.task(name=…)")
    if isinstance(function, type):
        raise InvalidRequest(f"{function!r} is a class; a task is a function or a coroutine function")
    # An object that can be called is as its method; a partial function, as its function.
    kinds = (function, getattr(function, "__call__", None))  # noqa: B004
    if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in kinds):
        raise InvalidRequest(f"{function!r} is a generator; a task is a function or a coroutine function")
    return any(inspect.iscoroutinefunction(each) for each in kinds)


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
        try:
            self.signature = inspect.signature(function)
        except (ValueError, TypeError):
            raise InvalidRequest(
                f"task {task}: {function!r} has no signature to inspect; wrap it in a function with parameters"
            ) from None

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """
        Check that the function can be called with these arguments.

        Raises:
            InvalidRequest: it cannot.
        """
        try:
            self._bind(args, kwargs)
        except TypeError as why:
            raise InvalidRequest(f"task {self.task}{self.signature}: {why}") from None

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """
        Check that the function can be called with these arguments.

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
            InvalidRequest: one does not fit its annotation, or its annotation has no form in JSON.
        """
        try:
            return self._converted(args, kwargs, encoding=True)
        except Unfit as why:
            raise InvalidRequest(self.why_unfit(why)) from None

    def why_unfit(self, why: Unfit) -> str:
        """Return the error text for the argument at whose path *why* is."""
        return one_line(f"argument {why.path} of task {self.task} is {why.described}; it must be {why.wanted}")

    def named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield each of the arguments with the name of its parameter."""
        positional, _ = self._codecs
        for place, value in enumerate(args):
            yield positional[min(place, len(positional) - 1)][0], value
        yield from kwargs.items()

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
            raise Unrunnable(self.why_unfit(why)) from None
        except InvalidRequest as why:
            raise Unrunnable(str(why)) from None

    def _converted(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], *, encoding: bool
    ) -> tuple[list[Any], dict[str, Any]]:
        positional, named = self._codecs
        last = len(positional) - 1
        found, by_name, at, value = [], {}, "", None
        try:
            for place, value in enumerate(args):
                at, codec = positional[min(place, last)]
                if type(value) is codec.plain:
                    found.append(value)
                else:
                    found.append(codec.encode(value) if encoding else codec.decode(value))
            for name, value in kwargs.items():
                at, codec = name, named.get(name) or named["**"]
                by_name[name] = codec.encode(value) if encoding else codec.decode(value)
        except Unfit as why:
            raise why.within(at) from None
        except RecursionError:
            raise Unfit(value, NOT_NESTED, at) from None
        except Exception as why:
            if not encoding:
                raise
            # The value's own code, or that of its class.
            text = one_line(f"argument {at} of task {self.task} cannot be encoded: {type(why).__name__}: {why}")
            raise InvalidRequest(text) from why
        return found, by_name

    @cached_property
    def _codecs(self) -> tuple[list[tuple[str, Codec]], dict[str, Codec]]:
        """
        The codecs by position, the last of them for all further arguments, and by name, "**" for all other names.

        Raises:
            InvalidRequest: an annotation cannot be resolved, or has no form in JSON.
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
        while isinstance(function, partial):
            function = inspect.unwrap(function.func)
        if not inspect.isroutine(function):
            function = function.__call__  # an object that can be called

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
