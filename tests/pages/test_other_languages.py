"""The clients in C++, Rust and Go of the how-to page, compiled and run: `make languages`."""

import os
import shutil

import pytest

PAGE = "docs/how-to/other-languages.md"
SECTIONS = {
    "C++": (["g++", "pkg-config"], ["worker.cpp"], 4),
    "Rust": (["cargo"], ["Cargo.toml", "build.rs", "src/main.rs"], 2),
    "Go": (["go"], ["main.go"], 9),
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("QUEUEBER_LANGUAGES" not in os.environ, reason="compiles for minutes: make languages"),
]


@pytest.mark.parametrize("section", SECTIONS)
def test_a_client_in_another_language_works(section, reader):
    programs, files, commands = SECTIONS[section]
    for program in ["capnp", *programs]:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    assert reader.follow(PAGE, section) == (files, commands)
