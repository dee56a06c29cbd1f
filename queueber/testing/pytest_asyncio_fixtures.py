"""Fixtures for tests that pytest-asyncio runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest_asyncio

if TYPE_CHECKING:
    from queueber.testing import TestServer


@pytest_asyncio.fixture
async def queueber_aio(queueber_server: TestServer) -> AsyncIterator[Any]:
    """Return a client of the test's server, of `queueber.aio`."""
    from queueber import aio  # noqa: PLC0415

    async with aio.connect(queueber_server.url()) as client:
        yield client
