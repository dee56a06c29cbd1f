"""A slice of the model through real sockets."""

import pytest
import sockets

pytestmark = pytest.mark.slow


def test_a_real_server_is_the_obvious_queue():
    servers = sockets.play(6, 3, steps=25)
    assert servers.calls > 30
