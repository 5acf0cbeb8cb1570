"""The way from one node to another breaks in one direction."""

import asyncio
from random import Random
from typing import Final

from scripts.proof.cluster import told
from scripts.proof.faults.fault import FaultFailed
from scripts.proof.faults.operator import until
from scripts.proof.ground import ELSEWHERE, Ground
from scripts.proof.link import Towards
from scripts.proof.proxy import Proxy

_WITHIN_S: Final = 20.0


async def one_way(ground: Ground, rng: Random, *, longest_s: float = 4.0) -> str:
    """Let one node reach another through a proxy, which then passes nothing on in one direction, and does not close.

    What is sent that way comes later, or never.
    """
    views = ground.views
    if views is None:
        raise FaultFailed("there is one node only: say --nodes 3")
    asker, other = (node.name for node in rng.sample(ground.nodes, 2))
    towards, held = rng.choice(tuple(Towards)), rng.random() < 0.5
    names = [node.name for node in ground.nodes]
    async with Proxy((views.addresses[other], views.port), host=ELSEWHERE, port=views.port) as proxy:
        try:
            views.see(asker, names, {other: ELSEWHERE})

            async def through() -> bool:
                return bool(proxy.names) and await _reaches(ground, asker, other)

            await until(f"{asker} reaches {other} through a proxy", through, _WITHIN_S)
            (proxy.stall if held else proxy.black_hole)(towards=frozenset({towards}))
            await asyncio.sleep(rng.uniform(longest_s / 2, longest_s))
            await proxy.flow()
        finally:
            views.mend()
    sent = f"asked of {other}" if towards is Towards.SERVER else f"was answered by {other}"
    return f"what {asker} {sent} was {'held back' if held else 'lost'}"


async def _reaches(ground: Ground, asker: str, other: str) -> bool:
    """Whether ``asker`` says that it is connected to ``other``, elsewhere."""
    node = next(node for node in ground.nodes if node.name == asker)
    peers = (await told(node)).get("peers", {})
    return any(f"name={other}," in text and ",connected=1," in text for text in peers.values())
