"""The source files of a program that is being written, for ``queueber work --reload``."""

import os
from pathlib import Path
from typing import Final

LOOK_SECONDS: Final = 0.5
"""Time between two looks at the files."""

_LEFT_OUT: Final = {"__pycache__", "node_modules", "site-packages"}


class SourceFiles:
    """The Python files under a folder, without hidden folders and virtual environments."""

    def __init__(self, folder: Path) -> None:
        """Begin with the files as they are."""
        self._folder = folder
        self._times = self._look()

    def changed(self) -> list[Path]:
        """Return the files that are new, other or gone since the last call, in order."""
        before, self._times = self._times, self._look()
        names = before.keys() | self._times.keys()
        return sorted(Path(name) for name in names if before.get(name) != self._times.get(name))

    def _look(self) -> dict[str, tuple[int, int]]:
        """Return the time of change and the size of each file."""
        found: dict[str, tuple[int, int]] = {}
        for folder, folders, names in os.walk(self._folder):
            if "pyvenv.cfg" in names:
                folders.clear()
                continue
            folders[:] = [each for each in folders if not each.startswith(".") and each not in _LEFT_OUT]
            for name in names:
                if name.endswith(".py"):
                    path = os.path.join(folder, name)  # noqa: PTH118  (thousands of them, twice a second)
                    try:
                        state = os.stat(path)  # noqa: PTH116
                    except OSError:
                        continue
                    found[path] = state.st_mtime_ns, state.st_size
        return found
