"""The scenes of mutations: small ones, in each of which one kind of trouble is frequent."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from random import Random
from typing import Final

from scripts.proof import deeds, truths
from scripts.proof.deeds import EVERYDAY, Deed, Step
from scripts.proof.scenes import Crew, Scene
from scripts.proof.tables import ITEMS

_READERS: Final[Crew] = {"plain": (2, 8), "session": (2, 8), "witness": (2, 4), "historian": (1, 8)}
_NODE: Final = {
    "node": "concurrency_limit = 3",
    "postgres": 'statement_timeout = "3s"',
    "load": 'timeout = "4s"\nbatch = 8',
}


def _feed(period_ms: int, *more: str) -> Mapping[str, str]:
    return {**_NODE, "feed": "\n".join((f'poll_period = "{period_ms}ms"', *more))}


def scatter(_: Random) -> Iterator[Step]:
    """More changes in one transaction than some bounds allow, each with a tag of its own."""
    yield (
        f"DO $$ BEGIN FOR n IN 1..{ITEMS} LOOP"
        " UPDATE ranks SET points = points + 1 WHERE id = n; UPDATE wide SET value = value + 1 WHERE id = n;"
        " END LOOP; END $$"
    )


def lock_out(rng: Random) -> Iterator[Step]:
    """Nobody reads ``items`` for longer than a poll takes."""
    yield "LOCK TABLE items IN ACCESS EXCLUSIVE MODE"
    yield 0.02 + rng.random() * 0.04


QUICK: Final = Scene(
    deeds=EVERYDAY,
    caches=(truths.ITEM, truths.MEMBERS, truths.SUMMED),
    writers=4,
    pace_s=0.006,
    readers=_READERS,
    node=_feed(10),
)
SLOW: Final = replace(QUICK, caches=(truths.SLOW,), node=_feed(2))
"""Loads take tens of milliseconds, and the feed does not wait for them."""

JOINED: Final = replace(SLOW, readers={"plain": (2, 8), "witness": (6, 4)}, node=_feed(200))
"""Many ask for the same at once, and each for something newer."""

_ROWS: Final[Mapping[Deed, float]] = {deeds.touch: 3, deeds.move: 1}
FLOODED: Final = replace(
    SLOW, deeds={**_ROWS, scatter: 4}, writers=5, node=_feed(2, "log_max_changes = 1000")
)
"""The log of changes is shorter than a load."""
OVERFLOWING: Final = replace(
    QUICK, deeds={**_ROWS, scatter: 2}, node=_feed(100, "max_changes_per_poll = 100")
)
TRIMMED: Final = replace(QUICK, deeds={deeds.touch: 1, deeds.trim: 2}, node=_feed(100), pace_s=0.003)
EMPTIED: Final = replace(
    QUICK, deeds={deeds.refill: 1}, writers=1, caches=(truths.FLUSHED, truths.LEFT), pace_s=0.004
)
REFRESHED: Final = replace(
    QUICK,
    deeds={deeds.refresh: 1, deeds.sweep: 1},
    writers=1,
    caches=(truths.SUMMARY,),
    pace_s=0.004,
)
REDEFINED: Final = replace(
    QUICK,
    deeds={deeds.touch: 30, deeds.rank: 30, deeds.reinterpret: 1, deeds.redefine: 1, deeds.reshape: 1},
    caches=(truths.SHOWN, truths.SCALED, truths.WIDE),
    pace_s=0.03,
)
REPLANNED: Final = replace(
    REDEFINED,
    deeds={deeds.rank: 6, deeds.touch: 2, deeds.reinterpret: 2, lock_out: 2},
    pace_s=0.02,
    caches=(truths.SHOWN,),
    writers=4,
    node=_feed(4),
)
FORGIVING: Final = replace(
    QUICK,
    caches=tuple(
        replace(cache, max_staleness_s=0.1, settings={"stale_if_error": '"60s"'}) for cache in QUICK.caches
    ),
)
"""What is old is served while PostgreSQL is out of reach."""
FAR: Final = replace(QUICK, delay_s=0.01)
"""PostgreSQL is some way off."""
STORED: Final = replace(
    QUICK,
    deeds={},
    writers=0,
    store_writers=truths.WRITERS,
    caches=(truths.SETTINGS,),
    pace_s=0.003,
    readers={**_READERS, "historian": (4, 8)},
    node={**_feed(10), "retention": 'history = "1s"\nperiod = "100ms"'},
)
"""A `store` cache alone, and little time to read its history."""
CONTESTED: Final = replace(STORED, thinks_s=0.1)
"""Its writers often follow the same version, and not in the order in which they read it."""
PROMISED: Final = replace(
    QUICK, deeds={deeds.touch: 1, deeds.promise: 2}, writers=3, pace_s=0.08, prepared_s=2.0
)
"""What is prepared mostly outlasts a crash, and is committed while readers still look."""
COPIED: Final = replace(QUICK, pace_s=0.01)
"""For several nodes: what is loaded by one is copied to another while it changes."""
