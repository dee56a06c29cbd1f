"""The house rules that no other tool checks."""

import ast
import functools
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import queueber
from queueber.errors import Kind, QueueberError
from queueber.limits import PEER_LIMITS
from tests.support.processes import completed

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "queueber"
PLUGINS = ROOT / "twisted"

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc"}

# Who may import what; everything else that is ours may not.
IMPORTERS = {
    "capnp": [],
    "rocksdict": ["plyvel/"],
    "twisted": ["server/", "client/", "cli/", "loadgen/", "testing/", "worker/", "tasks/"],
    "cronsim": ["tasks/"],
}

MODULES = sorted(path for folder in (PACKAGE, PLUGINS) for path in folder.rglob("*.py"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


FOLDERS = ("queueber", "twisted", "tests", "schema", "deploy", "docs", "changelog.d")
TEXTS = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".capnp", ".md", ".toml", ".service", ".socket", ".html", ".yml", ".sh"}
    or path.name == "Dockerfile"
) + sorted([*ROOT.glob("*.md"), *(ROOT / name for name in ("Makefile", "pyproject.toml", ".ci/run"))])

# Words that stand in for the noun or the verb. The brackets keep these lines from matching themselves.
DIALECT = re.compile(
    r"(?<![a-z])(?:(?:no|some|every)bod[y]|whoeve[r]|tol[d]|tell[s]|besid[e]|behin[d])(?![a-z])", re.IGNORECASE
)

OPENINGS = re.compile(r'^ *r?"""\s*(It|Its|What|As|How|Those|That|The same)\b', re.MULTILINE)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """The top-level package of every absolute import, those inside functions and for typing only included."""
    nodes = list(ast.walk(parsed(path)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return frozenset(name.partition(".")[0] for name in names)


def dialect(path: Path) -> Iterator[str]:
    """Yield a line for each word of a file, and for each opening of a docstring, that the house does not use."""
    text = path.read_text()
    for number, line in enumerate(text.splitlines() if DIALECT.search(text) else (), start=1):
        yield from (f"{named(path)}:{number}: {word}" for word in DIALECT.findall(line))
    # A docstring of a module, class, function or attribute: any string that is a statement.
    for found in OPENINGS.finditer(text) if path.suffix == ".py" else ():
        yield f"{named(path)}:{text.count(chr(10), 0, found.start()) + 1}: a docstring opens with {found[1]}"


def test_words_name_the_thing():
    assert [found for path in TEXTS for found in dialect(path)] == []


@functools.cache
def exists(pattern: str) -> bool:
    return next(ROOT.glob(pattern.rstrip("/")), None) is not None


def test_files_that_a_text_names_exist():
    """A path in backticks that begins with a folder of the repository, and may be a pattern."""
    path_named = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./*-]+)`")
    assert [
        f"{named(path)}: {found}"
        for path in TEXTS
        for found in path_named.findall(path.read_text())
        if not exists(found)
    ] == []


def prose(path: Path) -> str:
    """A document without its code blocks."""
    return re.sub(r"^(```+)[^`\n]*\n.*?^\1$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Return the fragments that a link may name: the headings as the usual renderers spell them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# The rules for modules name all that break them: a test for each module would cost more than what it looks at.


def test_a_module_says_what_it_is_for():
    assert [named(path) for path in MODULES if not ast.get_docstring(parsed(path))] == []


def test_modules_stay_short():
    assert [named(path) for path in MODULES if len(path.read_text().splitlines()) > MODULE_LINES_MAX] == []


def test_functions_stay_short():
    assert [
        f"{named(path)}: {node.name} has {length} lines"
        for path in MODULES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    ] == []


def test_a_module_has_a_telling_name():
    parts = {path: {part.removesuffix(".py") for part in path.relative_to(ROOT).parts} for path in MODULES}
    assert [named(path) for path in MODULES if parts[path] & NAMES_THAT_SAY_NOTHING] == []


@pytest.mark.parametrize("library", IMPORTERS)
def test_a_library_is_imported_only_where_it_may_be(library):
    importers = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if library in imported(path)]
    strays = [name for name in importers if not name.startswith(tuple(IMPORTERS[library]))]
    assert not strays


def test_twisted_stays_a_namespace():
    """An `__init__.py` there would hide Twisted itself in a checkout."""
    assert not list(PLUGINS.rglob("__init__.py"))


def test_every_error_says_what_it_means_and_what_to_do_next():
    for module in pkgutil.walk_packages(queueber.__path__, "queueber."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
    errors, rest = [], [QueueberError]
    while rest:
        error = rest.pop()
        errors.append(error)
        rest += error.__subclasses__()
    assert [error for error in errors if not error.__dict__.get("__doc__")] == []
    assert [error for error in errors if not isinstance(error.kind, Kind)] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_a_document_has_one_title_and_it_comes_first(path):
    text = prose(path)
    assert text.startswith("# ")
    assert len(re.findall(r"^# ", text, flags=re.MULTILINE)) == 1


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_links_between_documents_lead_somewhere(path):
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = path.parent / name if name else path
        if not found.exists() or (anchor and anchor not in anchors(found)):
            dead.append(target)
    assert not dead


SECURITY = (ROOT / "docs" / "operating.md").read_text().partition("\n## Security\n")[2]
CANNOT = re.findall(r"^\| (?!Who |---)(.+?) \| (.+?) \| (.+) \|$", SECURITY, flags=re.MULTILINE)


def proofs_in(path: Path) -> Iterator[str]:
    """All tests of a file, those of classes with their class."""
    for node in parsed(path).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield from (f"{node.name}::{each.name}" for each in node.body if isinstance(each, ast.FunctionDef))


@pytest.mark.parametrize(("who", "cannot", "shown"), CANNOT, ids=lambda text: text[:40])
def test_what_a_peer_cannot_do_is_shown_by_tests_that_exist(who, cannot, shown):
    named = re.findall(r"`([^`:]+)::([^`]+)`", shown)
    assert named
    assert len(named) == shown.count("`") // 2
    assert [test for file, test in named if test not in proofs_in(ROOT / "tests" / f"{file}.py")] == []


def test_all_kinds_of_hostile_peers_have_rows():
    assert len(CANNOT) == len(set(CANNOT)) >= 20
    assert {who.split()[-1] for who, _, _ in CANNOT} >= {"producer", "consumer", "peer", "user", "data"}


def test_the_operator_finds_every_limit():
    page = (ROOT / "docs" / "operating.md").read_text().partition("\n## Limits\n")[2].partition("\n## ")[0]
    rows = "".join(re.findall(r"^\| `.+$", page, flags=re.MULTILINE))
    assert [limit.name for limit in PEER_LIMITS if f"`{limit.name}`" not in rows] == []


def test_a_changelog_fragment_names_its_issue_and_kind():
    kinds = "feature|bugfix|doc|removal|misc"
    strays = [
        path.name for path in (ROOT / "changelog.d").iterdir() if not re.fullmatch(rf"\d+\.({kinds})\.md", path.name)
    ]
    assert not strays


def test_each_line_of_a_changelog_fragment_is_an_entry():
    assert [
        f"{named(path)}:{number}: {line[:40]}"
        for path in (ROOT / "changelog.d").iterdir()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if not re.fullmatch(r"[^\s-].*\.", line)
    ] == []


@pytest.mark.slow
def test_finding_the_plugin_imports_nothing_of_ours_and_no_reactor():
    """Twisted imports every plugin there is whenever it looks for one, on behalf of other people's programs too."""
    script = (
        "import sys; import twisted.plugins.queueber_plugin\n"
        "tops = {name.partition('.')[0] for name in sys.modules}\n"
        "print(*{'queueber', 'twisted.internet.reactor'} & {*tops, *sys.modules})"
    )
    done = completed([sys.executable, "-c", script], cwd=ROOT)
    assert (done.stdout.strip(), done.stderr) == ("", "")
