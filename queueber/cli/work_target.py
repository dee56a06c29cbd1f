"""``MODULE:OBJECT``: import what the user names, with one clear sentence for each mistake."""

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from queueber.errors import one_line

_IMPORTING = ("importlib/", "<frozen importlib")
"""Files of frames that only import."""


def load(spec: str, folder: Path) -> Any:  # noqa: ANN401  (whatever it is)
    """
    Import the module of *spec*, ``MODULE:OBJECT``, and return its object.  *folder* is looked at before all others.

    An error in the user's module prints the traceback from there on.

    Raises:
        click.ClickException: *spec* is malformed, there is no such module or object, or the module cannot be imported.
    """
    module_name, colon, name = spec.partition(":")
    if not colon or not _are_names(module_name, name) or module_name.endswith(".py"):
        raise click.UsageError(f"{spec!r} is not MODULE:OBJECT, as in shop.tasks:app{_hint(module_name, name)}.")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    found: Any = _imported(module_name, folder)
    for depth, part in enumerate(name.split(".")):
        if not hasattr(found, part):
            where = f"the module {module_name}" if not depth else f"{module_name}:{'.'.join(name.split('.')[:depth])}"
            raise click.ClickException(f"{where} has no {part}{_known(found)}")
        found = getattr(found, part)
    return found


def _are_names(module_name: str, name: str) -> bool:
    return all(part.isidentifier() for part in [*module_name.split("."), *name.split(".")])


def _hint(module_name: str, name: str) -> str:
    """Return how to write it, for a module without an object and for the path of a file."""
    module_name = module_name.removeprefix("./").removesuffix(".py").replace("/", ".")
    name = name or "app"
    return f"; for the object {name} it is {module_name}:{name}" if _are_names(module_name, name) else ""


def _imported(name: str, folder: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as why:
        missing = why.name or ""
        if (name == missing or name.startswith(f"{missing}.")) and not _own_frames(why):
            raise click.ClickException(
                f"there is no module {missing}, neither in {folder} nor among the installed ones"
            ) from None
        error: BaseException = why
    except (Exception, SystemExit) as why:  # noqa: BLE001  (whatever the user's module does)
        error = why
    _print_traceback(error)
    if isinstance(error, SystemExit):
        text = "it ends the program while it is imported; put that under `if __name__ == '__main__':`"
    else:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    raise click.ClickException(f"the module {name} cannot be imported: {one_line(text)}")


def _own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames of *error*, beginning with the first one in the user's code."""
    return [
        each
        for each in traceback.extract_tb(error.__traceback__)
        if each.filename != __file__ and not any(part in each.filename for part in _IMPORTING)
    ]


def _print_traceback(error: BaseException) -> None:
    found = traceback.TracebackException.from_exception(error)
    found.stack = traceback.StackSummary.from_list(_own_frames(error))
    click.echo("".join(found.format()).rstrip(), err=True)


def _known(found: object) -> str:
    """Return what an object has instead, for the error about a missing name."""
    names = [each for each in vars(found) if not each.startswith("_")] if hasattr(found, "__dict__") else []
    wanted = [each for each in names if type(getattr(found, each)).__name__ in {"Tasks", "Worker"}]
    return f"; it has {', '.join(wanted)}" if wanted else ""
