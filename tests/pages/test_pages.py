"""The tutorial and the README's first program, done by a reader with a real server."""

import pytest

from tests.pages.page import ROOT, Reader, same, steps
from tests.support.server_process import Server

pytestmark = pytest.mark.slow


@pytest.fixture
def reader(tmp_path):
    server = Server(tmp_path / "data")
    (tmp_path / "empty").mkdir()
    try:
        yield Reader(tmp_path / "empty", f"127.0.0.1:{server.port}")
    finally:
        server.stop()
        server.process.stdout.close()


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


def test_what_is_printed_is_compared(reader):
    with pytest.raises(AssertionError, match="echo"):
        reader.run("echo cat", "dog\n")
    assert same("in 0.20s") == same("in 3.1s") != same("in vain")
