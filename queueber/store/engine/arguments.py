"""What callers may pass: plyvel's strictness about types, which its users' tests rely on."""


def wrong_type(name: str, wanted: str, value: object) -> TypeError:
    """The error for *value* given as *name*, which must be *wanted*."""
    return TypeError(f"argument {name!r} must be {wanted}, not {type(value).__name__}")


def key_of(key: object, name: str = "key") -> bytes:
    """
    *key* itself.

    Raises:
        TypeError: it is not `bytes`.  plyvel takes any buffer for a value, but nothing else than this for a key.
    """
    if type(key) is not bytes:
        raise wrong_type(name, "bytes", key)
    return key


def as_bytes(value: object) -> bytes:
    """
    A copy of *value*, or itself if it is bytes already.

    Raises:
        TypeError: it is not a bytes-like object.
    """
    return value if type(value) is bytes else bytes(memoryview(value))  # type: ignore[arg-type]


def flag_of(value: object, name: str) -> bool:
    """
    *value*, where None means no as it does for plyvel.

    Raises:
        TypeError: it is neither a bool nor None.
    """
    if value is not None and type(value) is not bool:
        raise wrong_type(name, "a bool", value)
    return bool(value)
