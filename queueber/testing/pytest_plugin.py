"""
Fixtures for pytest: a test server, its URL, and clients of it.

pytest loads this module in every run of an environment with Queueber, so it
imports nothing of Queueber before a fixture is used.  Fixtures with coroutines
belong to the plugin that runs them: see `pytest_asyncio_fixtures` and
`pytest_twisted_fixtures`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from queueber.testing import TestServer


def pytest_configure(config: pytest.Config) -> None:
    """Add the marker, and the clients of the plugins for coroutines that this run has."""
    config.addinivalue_line("markers", "queueber(**options): options of the TestServer of the fixture queueber_server")
    plugins = config.pluginmanager
    for plugin, module in (("asyncio", "pytest_asyncio_fixtures"), ("twisted", "pytest_twisted_fixtures")):
        if plugins.hasplugin(plugin):
            plugins.import_plugin(f"queueber.testing.{module}")


@pytest.fixture
def queueber_server(request: pytest.FixtureRequest) -> Iterator[TestServer]:
    """Return a `queueber.testing.TestServer` of its own for each test, with the options of the marker `queueber`."""
    from queueber.testing import TestServer  # noqa: PLC0415

    marker = request.node.get_closest_marker("queueber")
    with TestServer(**(marker.kwargs if marker is not None else {})) as server:
        yield server


@pytest.fixture
def queueber_url(queueber_server: TestServer) -> str:
    """Return the URL of the test's server."""
    return queueber_server.url()


@pytest.fixture
def queueber_sync(queueber_server: TestServer) -> Iterator[Any]:
    """Return a blocking client of the test's server, of `queueber.sync`."""
    from queueber import sync  # noqa: PLC0415

    with sync.connect(queueber_server.url()) as client:
        yield client
