"""What a client writes to ``store`` caches, and what it gets for it. Pure.

A write is a set of puts and deletes that happen together or not at all. Each version of a key is named by
the transaction that created it; a deed may demand the version that it follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cluster.config import CacheConfig, WriteConfig
from snapring.errors import ArgumentInvalid, ReadOnly, ValueInvalid
from snapring.keys import Key

ABSENT: Final = 0
"""The version of a key that is not there."""


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
    """A write that was committed by transaction ``xid`` of ``incarnation``.

    ``xid`` is the version of every key that was put, and the ticket of whoever must see the write.
    ``existed`` counts the keys that had a version before.
    """

    xid: int
    incarnation: int
    existed: int


def stored_text(key: Key) -> str:
    """The text under which a ``store`` cache keeps ``key``. Raises `ArgumentInvalid`."""
    if not key.args:
        raise ArgumentInvalid(f"a key of {key.cache} needs an argument: {key}:NAME")
    return str(key)


def check(deeds: Sequence[Deed], caches: Sequence[CacheConfig], config: WriteConfig) -> None:
    """Raise `ReadOnly`, `ArgumentInvalid` or `ValueInvalid` unless ``deeds`` can be one write.

    ``caches`` are those of the deeds' keys.
    """
    if not 1 <= len(deeds) <= config.max_keys:
        raise ValueInvalid(f"one write has 1 to {config.max_keys} keys (write.max_keys), not {len(deeds)}")
    seen = set()
    for deed, cache in zip(deeds, caches, strict=True):
        if cache.kind != "store":
            raise ReadOnly(f"{cache.name!r} is a cache of rows: write to Postgres, and its entries follow")
        text = stored_text(deed.key)
        if text in seen:
            raise ValueInvalid(f"{text} is in the write twice: say once what becomes of it")
        seen.add(text)
        if deed.value is not None and len(deed.value) > config.max_value_bytes:
            raise ValueInvalid(
                f"the value of {text} has {len(deed.value)} bytes, write.max_value allows {config.max_value_bytes}"
            )
