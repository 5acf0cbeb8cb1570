"""PostgreSQL becomes another one behind a node's back."""

from random import Random
from typing import Final

from scripts.proof.faults import line, promotion, server, standstill
from scripts.proof.ground import Ground
from scripts.proof.link import Towards

_ANSWERS: Final = frozenset({Towards.CLIENT})


async def crashed(ground: Ground, rng: Random, *, longest_s: float = 0.5) -> str:
    """Hold answers back, lose the commits that they show, then deliver them."""
    async with line.mended(ground.proxy) as proxy:
        proxy.stall(towards=_ANSWERS)
        detail = await server.forgetful(ground, rng, longest_s=longest_s)
    return f"{detail}; then came the answers of before"


async def promoted(ground: Ground, rng: Random, *, longest_s: float = 1.0) -> str:
    """Let a node stand still while a standby takes over that lags behind."""
    async with ground.struck(rng) as node:
        with standstill.standing_still(node):
            detail = await promotion.promoted(ground, rng, longest_s=longest_s)
    return f"{detail}; {node.name} stood still meanwhile"
