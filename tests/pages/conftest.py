import pytest

from tests.pages.page import Reader
from tests.support.server_process import Server


@pytest.fixture
def reader(tmp_path):
    """A reader in an empty directory, with a server."""
    (tmp_path / "empty").mkdir()
    with Server(tmp_path / "data") as server:
        yield Reader(tmp_path / "empty", f"127.0.0.1:{server.port}")
