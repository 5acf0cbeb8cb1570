"""The fields of messages: what each must be, and how snapshots and spans of time travel. Pure.

A snapshot travels as its text; the last ones are remembered, since most messages name the same few.
"""

from functools import lru_cache
from typing import Final, TypeVar

from cluster.snapshots import Snapshot
from peers.flat import Field

MAX_INCARNATION: Final = 2**64 - 1

_REMEMBERED: Final = 64
_REMEMBERED_CHARACTERS: Final = 1024

T = TypeVar("T", bytes, int, float, str)


@lru_cache(maxsize=_REMEMBERED)
def snapshot_field(snapshot: Snapshot) -> str:
    """``snapshot`` as a field."""
    return str(snapshot)


def read_snapshot(field: Field) -> Snapshot:
    """The snapshot in ``field``. Raises `ValueError`."""
    text = is_of(str, field)
    return _remembered(text) if len(text) <= _REMEMBERED_CHARACTERS else Snapshot.parse(text)


_remembered: Final = lru_cache(maxsize=_REMEMBERED)(Snapshot.parse)


def natural(field: Field, most: int) -> int:
    """``field``, which must be a whole number from 0 to ``most``; else `ValueError`."""
    number = is_of(int, field)
    if not 0 <= number <= most:
        raise ValueError(f"a number that is not of 0 to {most}")
    return number


def span(field: Field) -> float:
    """``field``, which must be a time in seconds, infinity at most; else `ValueError`."""
    seconds = is_of(float, field)
    if not seconds >= 0.0:  # nor a NaN
        raise ValueError(f"a span of {seconds:g} s")
    return seconds


def is_of(kind: type[T], field: Field) -> T:
    """``field``, which must be of exactly this type; else `ValueError`."""
    if type(field) is not kind:
        raise ValueError(f"{type(field).__name__} in place of {kind.__name__}")
    return field
