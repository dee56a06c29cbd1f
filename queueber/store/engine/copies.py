"""What cannot be had twice."""

from typing import Never, SupportsIndex


class Uncopied:
    """Neither copied nor pickled: the copy would stand for the same place in RocksDB, and either would close it."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> Never:
        """
        Refuse.

        Raises:
            TypeError: always, from `copy` as from `pickle`.
        """
        raise TypeError(f"{type(self).__name__} cannot be copied or pickled")
