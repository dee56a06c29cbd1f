"""The text of an error that becomes the last error of an item."""

import pytest

from queueber.worker.verdicts import error_text


def test_the_error_shows_the_frames_of_the_handler_and_not_those_of_the_worker():
    names = {"__name__": "queueber.worker.handling"}
    exec(compile("def run(handler):\n    handler()\n", "handling.py", "exec"), names)

    def handler():
        raise ValueError("cat.txt")

    with pytest.raises(ValueError, match="cat") as caught:
        names["run"](handler)
    raised = caught.value.with_traceback(caught.value.__traceback__.tb_next)
    assert "handling.py" not in error_text(raised)
    assert "raise ValueError" in error_text(raised)


def test_an_error_within_queueber_keeps_its_frames():
    names = {"__name__": "queueber.worker.handling"}
    exec(compile("def run():\n    raise ValueError('bug')\n", "handling.py", "exec"), names)
    with pytest.raises(ValueError, match="bug") as caught:
        names["run"]()
    assert "handling.py" in error_text(caught.value.with_traceback(caught.value.__traceback__.tb_next))
