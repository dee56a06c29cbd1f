"""Fixtures for tests that pytest-twisted runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest_twisted

if TYPE_CHECKING:
    from queueber.testing import TestServer


@pytest_twisted.async_yield_fixture  # type: ignore[untyped-decorator]
async def queueber_twisted(queueber_server: TestServer) -> AsyncIterator[Any]:
    """Return a client of the test's server, of `queueber.client`, on the installed reactor."""
    # pytest-twisted has installed it.
    from twisted.internet import reactor  # noqa: PLC0415, TID251

    from queueber.client import connect  # noqa: PLC0415

    client = connect(reactor, queueber_server.url())
    yield client
    await client.close()
