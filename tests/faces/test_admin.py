"""The administrative calls, over each face, through the control socket of a real server."""

import pytest

from queueber.errors import QueueberError
from tests.support.server_process import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    """The URL of the control socket."""
    with Server(tmp_path_factory.mktemp("data") / "data") as server:
        yield f"queueber+unix://{server.control()}"


async def test_a_server_is_counted_checked_and_backed_up(face, control, tmp_path):
    async with face.client(control) as client:
        await client.queue().add(b"x")
        stats = await client.admin.stats()
        assert stats.items >= 1 and stats.connections >= 1
        assert (await client.admin.check()).findings == []
        assert await client.admin.backup_progress() == (0, 0)
        assert await client.admin.backup(tmp_path / "backup") is None
        assert any((tmp_path / "backup").iterdir())
        with pytest.raises(QueueberError, match="backup"):
            await client.admin.backup(tmp_path / "backup")
