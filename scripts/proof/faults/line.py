"""The network between the node and PostgreSQL breaks: for the feed's connection alone, or for all of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Final

from scripts.proof.faults.fault import FaultFailed
from scripts.proof.ground import Ground
from scripts.proof.link import BOTH, Towards
from scripts.proof.proxy import Proxy

FEED: Final = "snapring feed"

_CUTS: Final = 4
_DIRECTIONS: Final = (BOTH, frozenset({Towards.SERVER}), frozenset({Towards.CLIENT}))


async def cut(ground: Ground, rng: Random, *, only: str | None, longest_s: float = 2.0) -> str:
    """Reset the connections several times, whenever that catches some."""
    done = 0
    for _ in range(_CUTS):
        done += ground.proxy.cut(only)
        await asyncio.sleep(rng.uniform(0.0, 2 * longest_s / _CUTS))
    if not done:
        raise FaultFailed(f"no connection of {only or 'the node'!r} was there to be cut")
    return f"{done} connections reset"


async def stalled(ground: Ground, rng: Random, *, only: str | None, longest_s: float = 3.0) -> str:
    """Hold everything back, then let it go."""
    towards, seconds = rng.choice(_DIRECTIONS), rng.uniform(longest_s / 2, longest_s)
    async with mended(ground.proxy) as proxy:
        proxy.stall(only, towards=towards)
        await asyncio.sleep(seconds)
    return f"held for {seconds:.1f} s{_which(towards)}"


async def black_holed(ground: Ground, rng: Random, *, only: str | None, longest_s: float = 3.0) -> str:
    """Swallow everything; connections that lost something stay silent for good."""
    towards, seconds = rng.choice(_DIRECTIONS), rng.uniform(longest_s / 2, longest_s)
    async with mended(ground.proxy) as proxy:
        proxy.black_hole(only, towards=towards)
        await asyncio.sleep(seconds)
    return f"swallowed for {seconds:.1f} s{_which(towards)}"


async def refused(ground: Ground, rng: Random, *, longest_s: float = 2.0) -> str:
    """Reset every connection, and let nobody in for a while."""
    seconds = rng.uniform(longest_s / 2, longest_s)
    async with mended(ground.proxy) as proxy:
        proxy.refuse()
        await asyncio.sleep(seconds)
    return f"closed for {seconds:.1f} s"


async def slow(ground: Ground, rng: Random, *, longest_s: float = 3.0) -> str:
    """Let everything arrive late."""
    late_s = rng.uniform(0.02, 0.2)
    async with mended(ground.proxy) as proxy:
        proxy.delay(late_s)
        await asyncio.sleep(longest_s)
    return f"{late_s * 1000:.0f} ms later in each direction for {longest_s:.1f} s"


@asynccontextmanager
async def mended(proxy: Proxy) -> AsyncIterator[Proxy]:
    """Whatever is done to ``proxy`` in this context ends with it."""
    try:
        yield proxy
    finally:
        await proxy.flow()


def _which(towards: frozenset[Towards]) -> str:
    return "" if towards == BOTH else f", towards the {' and the '.join(end.value for end in towards)} only"
