"""
Check the types of the documentation's programs, and of uses of each public package: `make types`.

mypy and pyright see what users have: programs in folders of their own, with Queueber installed.  Programs with
annotations are checked in strict mode.  A line with a mistake names the errors that it must get, mypy's and pyright's:
`# error: arg-type, reportArgumentType`.
"""

import json
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from tests.pages.page import ROOT, steps

USES = Path(__file__).with_name("uses")
CACHE = ROOT / ".mypy_cache" / "programs"

FOLDERS = {
    "programs": ["README.md", "docs/clients.md", "docs/python.md", "docs/worker.md", "docs/how-to/fastapi.md"],
    "tasks": ["docs/tasks.md"],
    "testing": ["docs/testing.md"],
    "tutorial": ["docs/tutorial.md"],
}
"""Folders, and the pages whose programs are in them.  Django is left out, because it has no types."""

ANNOTATED = {"README.md", "docs/clients.md"}
"""Pages whose programs are checked in strict mode."""

STRICT = "# pyright: strict\n"
LENIENT = (
    "# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, no-check-untyped-defs\n"
    '# mypy: disable-error-code="import-untyped"\n'
)

BEFORE = {"docs/worker.md": "from queueber.worker import Worker\nfrom resize import resize\n\n"}
"""The names that a page's snippets have from its programs."""

IN_A_COROUTINE = {
    "docs/python.md": """
from queueber.client import Client, Queue, connect


# mypy: ignore-errors
async def snippets(client: Client, queue: Queue) -> None:
"""
}
"""Pages whose snippets are one program, and what comes before them."""


def programs(page):
    """Return the programs and snippets of *page*, by the names of their files."""
    found, snippets = {}, []
    for kind, text in steps(page):
        if kind == "python":
            name = re.match(r"# (\w+\.py)\n", text)
            if name is None:
                snippets.append(BEFORE.get(page, "") + text)
            else:
                found[name[1]] = text
    if page in IN_A_COROUTINE:
        snippets = [IN_A_COROUTINE[page] + textwrap.indent("".join(snippets), "    ")]
    stem = Path(page).stem.lower()
    return found | {f"{stem}_{number}.py": text for number, text in enumerate(snippets, 1)}


def write_programs(root):
    """Write all programs below *root*, with their options for the checkers at the end."""
    for folder, pages in FOLDERS.items():
        (root / folder).mkdir()
        for page in pages:
            found = programs(page)
            assert found, f"{page} has no programs"
            for name, text in found.items():
                assert not (root / folder / name).exists(), f"two programs are named {name}"
                (root / folder / name).write_text(text + (STRICT if page in ANNOTATED else LENIENT))
    (root / "uses").mkdir()
    for path in USES.glob("*.py"):
        (root / "uses" / path.name).write_text(path.read_text() + STRICT)
    folders = sorted(path.name for path in root.iterdir())
    (root / "pyrightconfig.json").write_text(
        json.dumps({"typeCheckingMode": "standard", "executionEnvironments": [{"root": each} for each in folders]})
    )
    return folders


def expected(root):
    """Return the errors that the programs below *root* say they must get: file, line and rule."""
    return {
        (path.relative_to(root).as_posix(), number, rule)
        for path in root.rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (comment := re.search(r"# error: (.*)", line))
        for rule in comment[1].split(", ")
    }


def run(*command, folder):
    """Run a checker in *folder*, and return its output, which is JSON."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return done.stdout


def mypy_errors(root, folder):
    """Return what mypy finds in one folder: file, line, rule, and text."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={CACHE}"]
    output = run(*command, "--no-error-summary", "--output=json", ".", folder=root / folder)
    for line in output.splitlines():
        found = json.loads(line)
        if found["severity"] == "error":
            yield f"{folder}/{found['file']}", found["line"], found["code"], found["message"]


def pyright_errors(root):
    """Return what pyright finds in all folders, likewise."""
    command = [Path(sys.executable).with_name("basedpyright"), "--outputjson", "--pythonpath", sys.executable]
    for found in json.loads(run(*command, "--project", root, folder=root))["generalDiagnostics"]:
        if found["severity"] == "error":
            path = Path(found["file"]).relative_to(root)
            yield path.as_posix(), found["range"]["start"]["line"] + 1, found.get("rule", "syntax"), found["message"]


def main():
    """Run both checkers, and print what is not as expected."""
    with tempfile.TemporaryDirectory() as made:
        root = Path(made).resolve()
        folders = write_programs(root)
        wanted = expected(root)
        found = [error for folder in folders for error in mypy_errors(root, folder)]
        found += pyright_errors(root)
        texts = {(name, line, rule): text for name, line, rule, text in found}
        wrong = [f"{at[0]}:{at[1]}: {text} [{at[2]}]" for at, text in texts.items() if at not in wanted]
        missed = sorted(wanted - texts.keys())
        wrong += [f"{name}:{line}: no error [{rule}]" for name, line, rule in missed]
        print(*wrong, sep="\n", end="\n" if wrong else "")
        programs_found = len(list(root.rglob("*.py")))
    print(f"{programs_found} programs, {len(wanted)} errors expected, {len(wrong)} differences")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
