"""What a client writes to ``store`` caches, and what it gets for it. Pure.

A write is a set of puts and deletes that happen together or not at all. Each gives what it puts a version of
its own, a random number; a deed may demand the version that it follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cluster.config import CacheConfig, WriteConfig
from cluster.snapshots import Snapshot
from snapring.errors import ArgumentInvalid, ReadOnly, ValueInvalid, VersionMismatch
from snapring.keys import Key

ABSENT: Final = 0
"""The version of a key that is not there."""

MAX_VERSION: Final = 2**53 - 1
"""Versions are from 1 to this, so that clients may read them as floats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """Put ``value`` under ``key``, or delete it where ``value`` is None.

    ``if_version``, where given, is the version that the key must be at, `ABSENT` for none.
    """

    key: Key
    value: bytes | None
    if_version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A write that was committed by transaction ``xid`` of ``incarnation``, the ticket of whoever must see it.

    ``version`` is that of every key that was put. ``existed`` counts the keys that had a version before.
    """

    xid: int
    version: int
    incarnation: int
    existed: int


class Refused(VersionMismatch):
    """A `VersionMismatch`, and where it was seen: at snapshot ``seen`` of ``incarnation``."""

    def __init__(self, key: str, *, version: int, seen: Snapshot, incarnation: int) -> None:
        super().__init__(key, version=version)
        self.seen = seen
        self.incarnation = incarnation


def stored_text(key: Key) -> str:
    """The text under which a ``store`` cache keeps ``key``. Raises `ArgumentInvalid`."""
    if not key.args:
        raise ArgumentInvalid(f"a key of {key.cache} needs an argument: {key}:NAME")
    return str(key)


def require_store(cache: CacheConfig) -> None:
    """Raise `ReadOnly` unless ``cache`` takes writes."""
    if cache.kind != "store":
        raise ReadOnly(f"{cache.name!r} is a cache of rows: write to Postgres, and its entries follow")


def check(deeds: Sequence[Deed], caches: Sequence[CacheConfig], config: WriteConfig) -> None:
    """Raise `ReadOnly`, `ArgumentInvalid` or `ValueInvalid` unless ``deeds`` can be one write.

    ``caches`` are those of the deeds' keys.
    """
    if not 1 <= len(deeds) <= config.max_keys:
        raise ValueInvalid(f"one write has 1 to {config.max_keys} keys (write.max_keys), not {len(deeds)}")
    seen = set()
    for deed, cache in zip(deeds, caches, strict=True):
        require_store(cache)
        text = stored_text(deed.key)
        if text in seen:
            raise ValueInvalid(f"{text} is in the write twice: say once what becomes of it")
        seen.add(text)
        if deed.value is not None and len(deed.value) > config.max_value_bytes:
            raise ValueInvalid(
                f"the value of {text} has {len(deed.value)} bytes, write.max_value allows {config.max_value_bytes}"
            )
