"""What a load brought -> an entry: its value encoded, its version, its time to live."""

from collections.abc import Mapping
from math import inf
from random import Random
from typing import cast

from cluster.config import CacheConfig
from cluster.encoding import encoder, rows_to_value
from cluster.entries import Entry, Versioned
from cluster.loader import Loaded
from cluster.writes import ABSENT


class Landing:
    """Makes the entries of one node's ``caches``. ``random`` spreads the ends of their lives."""

    def __init__(self, caches: Mapping[str, CacheConfig], random: Random) -> None:
        self._encoders = {name: encoder(cache.encoding) for name, cache in caches.items()}
        self._random = random

    def __repr__(self) -> str:
        return f"<Landing {len(self._encoders)} caches>"

    def entry(self, key: bytes, loaded: Loaded) -> Entry:
        """The entry of what was loaded for ``key``, a canonical text."""
        cache = loaded.plan.cache
        entry = (Entry if cache.kind == "query" else Versioned)(
            key=key,
            cache=cache,
            value=self._value(cache, loaded),
            snapshot=loaded.snapshot,
            loaded_s=loaded.sent_s,
            tags=loaded.tags,
            until_s=self._until_s(cache, loaded.sent_s),
        )
        if isinstance(entry, Versioned):
            entry.version = int(str(loaded.rows[0][1])) if loaded.rows else ABSENT
        return entry

    def _value(self, cache: CacheConfig, loaded: Loaded) -> bytes | None:
        if cache.kind == "store":
            return cast("bytes", loaded.rows[0][0]) if loaded.rows else None
        rows = rows_to_value(loaded.plan.columns, loaded.rows)
        if not cache.single:
            return self._encoders[cache.name](rows)
        return self._encoders[cache.name](rows[0]) if rows else None

    def _until_s(self, cache: CacheConfig, loaded_s: float) -> float:
        if cache.ttl_s is None:
            return inf
        return loaded_s + cache.ttl_s * (1.0 - cache.ttl_jitter * self._random.random())
