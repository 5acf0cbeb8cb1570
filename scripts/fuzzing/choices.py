"""Bytes read as choices: the same bytes choose the same, and any bytes choose something."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """What ``data`` chooses, from its beginning on; past its end every choice is the first or the least."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, most: int) -> int:
        """From 0 to ``most``."""
        size = (most.bit_length() + 7) // 8
        return int.from_bytes(self.raw(size).ljust(size, b"\0"), "big") % (most + 1)

    def pick(self, options: Sequence[T]) -> T:
        """One of ``options``."""
        return options[self.number(len(options) - 1)]

    def flag(self) -> bool:
        """Yes or no."""
        return self.number(1) == 1

    def raw(self, size: int) -> bytes:
        """The next ``size`` bytes, or as many as there are."""
        taken = self._data[self._at : self._at + size]
        self._at += len(taken)
        return taken

    def rest(self) -> bytes:
        """All that is left."""
        return self.raw(len(self._data))
