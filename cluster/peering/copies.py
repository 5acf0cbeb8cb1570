"""Entries as they travel from node to node, as bytes. Pure.

Flat arrays (`peers.flat`), a copy after the other, each with the same number of fields::

    fields of each | key | definition | value | snapshot | incarnation | tags | ttl_s | version | key | …

What arrives is no more trusted than a load: it is true at its own snapshot, and goes through admission. No time
travels with it: since when its snapshot was current, its receiver knows from its own log of the feed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from math import inf, isfinite
from typing import Final

from cluster.config import CacheConfig
from cluster.entries import Entry, Timeline, Versioned
from cluster.peering.fields import MAX_INCARNATION, is_of, natural, read_snapshot, snapshot_field, span
from cluster.snapshots import Snapshot
from cluster.writes import ABSENT, MAX_VERSION
from peers.errors import MessageInvalid
from peers.flat import Field, pack, unpack

_TAG_BYTES: Final = 9
"""Tags are signed numbers of 64 bits, and numbers above those for whole tables."""
_FIELDS: Final = 8
KEEP: Final = 2
"""The kind of the call that brings copies."""
TAKE: Final = 3
"""The kind of the call that asks for one, as a `Get`."""
OVERHEAD_BYTES: Final = 128
"""Of a copy, besides its key, value and tags; a snapshot of many running transactions takes more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """What an entry says: ``value`` is true at ``snapshot`` of ``incarnation``, and depends on ``tags``.

    ``definition``: see `cluster.peering.messages.definition`. ``ttl_s`` is how much longer it lives, infinity
    without end. ``version`` as in `Entry`.
    """

    key: bytes
    definition: bytes
    value: bytes | None
    snapshot: Snapshot
    incarnation: int
    tags: tuple[int, ...]
    ttl_s: float
    version: int | None


def copy_of(entry: Entry, timeline: Timeline, definition: bytes, now_s: float) -> Copy | None:
    """``entry`` as of the newest snapshot at which it is known true; None if it has ended or nothing is known."""
    if entry.until_s <= now_s or timeline.incarnation is None:
        return None
    as_of, _ = timeline.as_of(entry)
    return Copy(
        key=entry.key,
        definition=definition,
        value=entry.value,
        snapshot=as_of,
        incarnation=timeline.incarnation,
        tags=entry.tags,
        ttl_s=entry.until_s - now_s,
        version=entry.version,
    )


def entry_of(copy: Copy, cache: CacheConfig, timeline: Timeline, now_s: float) -> Entry:
    """The entry that ``copy`` is of, to be admitted."""
    entry = (Entry if cache.kind == "query" else Versioned)(
        key=copy.key,
        cache=cache,
        value=copy.value,
        snapshot=copy.snapshot,
        loaded_s=timeline.logged_s(copy.snapshot),
        tags=copy.tags,
        until_s=now_s + copy.ttl_s,
    )
    if isinstance(entry, Versioned):
        entry.version = ABSENT if copy.version is None else copy.version
    return entry


def encode_copies(copies: Iterable[Copy]) -> bytes:
    """``copies`` as bytes."""
    return pack((_FIELDS, *chain.from_iterable(map(_fields, copies))))


def decode_copies(body: bytes) -> Sequence[Copy]:
    """The copies that ``body`` is. Raises `MessageInvalid`."""
    count, *fields = unpack(body) or [None]
    if type(count) is not int or count < _FIELDS or len(fields) % count:
        raise MessageInvalid("copies that are cut off")
    try:
        return [_copy(fields[at : at + _FIELDS]) for at in range(0, len(fields), count)]
    except ValueError as error:
        raise MessageInvalid(f"a copy that is none: {error}") from error


def size_of(copy: Copy) -> int:
    """About how many bytes ``copy`` takes."""
    value = 0 if copy.value is None else len(copy.value)
    return OVERHEAD_BYTES + len(copy.key) + value + _TAG_BYTES * len(copy.tags)


def _fields(copy: Copy) -> tuple[Field, ...]:
    return (
        copy.key,
        copy.definition,
        copy.value,
        snapshot_field(copy.snapshot),
        copy.incarnation,
        b"".join(tag.to_bytes(_TAG_BYTES, "big", signed=True) for tag in copy.tags),
        copy.ttl_s if isfinite(copy.ttl_s) else None,
        copy.version,
    )


def _copy(fields: Sequence[Field]) -> Copy:
    key, definition, value, snapshot, incarnation, tags, ttl_s, version = fields
    return Copy(
        key=is_of(bytes, key),
        definition=is_of(bytes, definition),
        value=None if value is None else is_of(bytes, value),
        snapshot=read_snapshot(snapshot),
        incarnation=natural(incarnation, MAX_INCARNATION),
        tags=_tags(is_of(bytes, tags)),
        ttl_s=inf if ttl_s is None else span(ttl_s),
        version=None if version is None else natural(version, MAX_VERSION),
    )


def _tags(packed: bytes) -> tuple[int, ...]:
    if len(packed) % _TAG_BYTES:
        raise ValueError("a tag that is cut off")
    parts = (packed[at : at + _TAG_BYTES] for at in range(0, len(packed), _TAG_BYTES))
    return tuple(int.from_bytes(part, "big", signed=True) for part in parts)
