"""
Configuration of Sphinx, which builds the HTML documentation: `make docs`.

The pages are the Markdown files of this directory, which can be read without
a build, too.  The README and CONTRIBUTING join them as pages, and the
reference is built from docstrings.
"""

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from queueber import __version__

DOCS = Path(__file__).parent

project = "Queueber"
release = version = __version__
author = "the authors of Queueber"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "index"
exclude_patterns = ["_build", "conf.py"]
html_theme = "furo"
html_title = "Queueber"
html_copy_source = False

myst_heading_anchors = 4
# A console session shows prompts and ids that no lexer knows.
highlight_language = "none"

# Docstrings mark code by single backticks and arguments by asterisks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# Classes of the same name in two clients.
suppress_warnings = ["ref.python"]
napoleon_use_rtype = False

_OUTSIDE = {"readme": "../README.md", "contributing": "../CONTRIBUTING.md"}
"""Files that the build puts in as pages; this directory has only links to them."""


def _read(_: Sphinx, name: str, source: list[str]) -> None:
    """Put in the pages of `_OUTSIDE`, link them, and give the index the list of pages for the sidebar."""
    text = source[0]
    if name in _OUTSIDE:
        text = (DOCS / _OUTSIDE[name]).read_text()
        text = re.sub(r"\]\((?!https?:|#)", "](../", text).replace("](../docs/", "](")
        # A directory is no page.
        text = re.sub(r"\[([^]]+)\]\(\.\./[^)]*/\)", r"\1", text)
    for page, path in _OUTSIDE.items():
        text = text.replace(f"]({path}", f"]({page}.md")
    if name == root_doc:
        text += _sidebar(text)
    source[0] = text


def _prepare(_: Sphinx, what: str, *arguments: Any) -> None:  # noqa: ANN401  (name, object, options, lines)
    """Mark indented examples in a docstring as code."""
    lines: list[str] = arguments[-1]
    if what == "attribute":
        # Napoleon takes the words up to a colon of the first line for the type.
        lines.insert(0, "")
        if re.fullmatch(r"Alias for field number \d+", lines[1]):
            lines.clear()
    for at in range(len(lines) - 2, 0, -1):
        before, blank, example = lines[at - 1 : at + 2]
        if not blank and example.startswith("    ") and before and not before.startswith(" "):
            # Indented after a blank line: arguments have no line before them, and code has.
            lines[at - 1] = f"{before}:" if before.endswith(":") else before
            if not before.endswith(":"):
                lines[at : at + 1] = ["", "::", ""]


def _sidebar(index: str) -> str:
    """Return a hidden table of contents with all pages that *index* links, in the order of its headings."""
    sections = re.split(r"^\*\*(.+)\*\*$", index, flags=re.MULTILINE)[1:]
    found = ""
    for caption, text in zip(sections[::2], sections[1::2], strict=True):
        pages = dict.fromkeys(re.findall(r"\]\(([\w/-]+)\.md\)", text))
        found += "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""])
    return found


def setup(app: Sphinx) -> None:
    """Register the hooks."""
    app.connect("source-read", _read)
    app.connect("autodoc-process-docstring", _prepare, priority=1)  # before napoleon
