"""The tutorial and the README's first program, done by a reader with a real server."""

import pytest

from tests.pages.page import ROOT, same, steps

pytestmark = pytest.mark.slow


def test_the_tutorial_goes_as_it_says(reader):
    files, commands = reader.follow("docs/tutorial.md")
    assert files == ["order.py", "pictures.py", "shop.py", "sell.py", "test_shop.py"]
    assert commands == 10


def test_the_first_program_of_the_readme_works(reader):
    kind, program = steps("README.md")[0]
    assert kind == "python"
    assert len(program.splitlines()) <= 10
    (reader.folder / "first.py").write_text(program.replace("127.0.0.1:9090", reader.address))
    reader.run("python first.py", "resizing cat.jpg\nresizing dog.jpg\n")
    assert (ROOT / "README.md").read_text().index("```python") < 1_000


def test_the_readme_leads_to_a_running_worker(reader):
    assert reader.follow("README.md", "Get started") == (["thumbnails.py"], 2)


def test_what_is_printed_is_compared(reader):
    with pytest.raises(AssertionError, match="echo"):
        reader.run("echo cat", "dog\n")
    assert same("in 0.20s") == same("in 3.1s") != same("in vain")
