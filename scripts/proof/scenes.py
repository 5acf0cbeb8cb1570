"""A scene: which caches are read while which deeds are done, and what the node and the server are told."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from scripts.proof import truths
from scripts.proof.caches import Cache
from scripts.proof.deeds import DDL, EVERYDAY, PROMISES, TRUNCATION, Deed

Crew = Mapping[str, tuple[int, int]]
"""How many readers there are of each habit, and how many reads each of them has in flight."""

READERS: Final[Crew] = {
    "plain": (4, 64),
    "session": (3, 16),
    "witness": (2, 8),
    "historian": (1, 16),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """``node``: sections of its TOML file by name; ``server``: PostgreSQL's settings.

    ``delay_s``: how long what the node and PostgreSQL send each other is on its way; ``prepared_s``: how long
    a prepared transaction waits for its commit, at most; ``thinks_s``: how long a writer of the store does before it
    writes what its version depends on, at most.
    """

    deeds: Mapping[Deed, float]
    caches: tuple[Cache, ...] = truths.EVERY
    writers: int = 6
    store_writers: int = 0
    pace_s: float = 0.1
    readers: Crew = field(default_factory=lambda: READERS)
    node: Mapping[str, str] = field(default_factory=dict)
    server: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    prepared_s: float = 0.3
    thinks_s: float = 0.0

    @property
    def by_name(self) -> dict[str, Cache]:
        """The caches by name."""
        return {cache.name: cache for cache in self.caches}

    @property
    def keys(self) -> list[str]:
        """Every key that is read."""
        return [key for cache in self.caches for key in cache.keys]

    def with_hands(self, *, writers: int | None, plain_readers: int | None) -> "Scene":
        """The same with other numbers of writers and of plain readers, where they are given."""
        readers = dict(self.readers)
        if plain_readers is not None:
            readers["plain"] = plain_readers, readers.get("plain", READERS["plain"])[1]
        return replace(self, writers=writers or self.writers, readers=readers)

    def node_settings(self) -> dict[str, str]:
        """Sections of the node's TOML file, those of the caches among them."""
        return {**self.node, **{f"caches.{cache.name}": cache.toml() for cache in self.caches}}


EVERYTHING: Final = Scene(store_writers=truths.WRITERS, deeds={**EVERYDAY, **PROMISES, **TRUNCATION, **DDL})
"""All that foreign writers do, on all caches."""
