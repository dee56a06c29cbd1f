"""RocksDB's errors become plyvel's, by their text."""

import pytest
import rocksdict

from queueber import plyvel
from queueber.errors import Damaged, Passing, Stalled, StorageError, Withheld
from queueber.plyvel.errors import translate_error


def test_an_error_gets_its_class_from_the_text():
    kinds = {
        "IO error: No space left on device": plyvel.IOError,
        "Corruption: block checksum mismatch": plyvel.CorruptionError,
        "Invalid argument: what": plyvel.Error,
        "Result incomplete: Write stall": Stalled,
    }
    errors = {text: translate_error(Exception(text)) for text in kinds}
    assert all(isinstance(errors[text], kind) for text, kind in kinds.items())
    assert issubclass(plyvel.IOError, OSError)
    assert issubclass(plyvel.IOError, StorageError)
    assert isinstance(translate_error(rocksdict.DbClosedError("closed")), RuntimeError)
    ours = ValueError("raw mode only support bytes")
    assert translate_error(ours) is ours


STATUS_TEXTS = [
    (Passing, "IO error: While open a file for random read: /d/000013.blob: Too many open files"),
    (Passing, "IO error: While open a file for random read: /d/000013.sst: Cannot allocate memory"),
    (Passing, "IO error: while open a file for lock: /d/LOCK: Too many open files in system"),
    (Passing, "Invalid argument: Found options incompatible with filesystem: IO error: /d: Too many open files"),
    (Passing, "Corruption: Can't access /000008.sst: IO error: while stat a file for size: /d: Permission denied"),
    (Passing, "IO error: No space left on device: While appending to file: /d/1.sst: No space left on device"),
    (Withheld, "IO error: While pread offset 0 len 4096: /d/000012.sst: Input/output error"),
    (Withheld, "IO error: No such file or directory: While open: /d/1.blob: No such file or directory"),
    (Damaged, "Corruption: IO error: No such file or directory: /d/1.sst: No such file or directory  The file x"),
    (Damaged, "Corruption: Blob CRC mismatch"),
]


@pytest.mark.parametrize(("kind", "text"), STATUS_TEXTS)
def test_damage_and_passing_errors_are_distinguished_by_the_text(kind, text):
    error = translate_error(Exception(text))
    assert next(each for each in (Withheld, Damaged, Passing) if isinstance(error, each)) is kind
    if text.startswith("IO error"):
        assert isinstance(error, plyvel.IOError)
