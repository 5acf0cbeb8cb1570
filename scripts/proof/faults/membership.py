"""Nodes come, go, and see different clusters."""

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Final

from scripts.proof.cluster import Disagreement, agreed, number, rings, surveyed
from scripts.proof.faults.fault import FaultFailed
from scripts.proof.faults.operator import until
from scripts.proof.ground import SPARE, Ground
from scripts.proof.nodes import NodeProcess
from scripts.proof.together import in_all
from scripts.proof.views import Views

_FEWEST: Final = 2
_WITHIN_S: Final = 20.0


async def scaled(ground: Ground, rng: Random, *, longest_s: float = 1.0) -> str:
    """Start two more nodes, drain all but two, and start what is missing; each time until all have one ring."""
    usual = len(ground.nodes)
    took = []
    for count in (usual + SPARE, _FEWEST, usual):
        await _scale(ground, count)
        took.append(f"{count} after {await _agreed(ground.nodes):.1f} s")
        await asyncio.sleep(rng.uniform(longest_s / 2, longest_s))
    return f"{usual} nodes were {', '.join(took)} more"


async def restarted(ground: Ground, rng: Random) -> str:
    """Drain every node and start it again, one after the other, the last one first."""
    nodes = ground.nodes[::-1]
    if rng.random() < 0.5:
        rng.shuffle(nodes)
    for node in nodes:
        await ground.dismiss(node)
        await ground.enlist(node)
        await _agreed(ground.nodes)
    return f"drained and started again: {', '.join(node.name for node in nodes)}"


async def split(ground: Ground, rng: Random, *, seconds: float) -> str:
    """Let every node see another part of the cluster, itself always among them."""
    views = _views(ground)
    names = [node.name for node in ground.nodes]
    before = await _loads(ground)
    seen = parts(names, rng)
    try:
        for viewer, part in zip(names, seen, strict=True):
            views.see(viewer, part)
        await _differing(ground.nodes, len({*map(tuple, seen)}))
        await asyncio.sleep(seconds)
        loads = await _loads(ground) - before
    finally:
        views.mend()
    agreed_s = await _agreed(ground.nodes)
    told = "; ".join(f"{viewer} saw {'+'.join(part)}" for viewer, part in zip(names, seen, strict=True))
    return f"for {seconds:g} s {told}: {loads} loads; one ring again after {agreed_s:.1f} s"


def parts(names: Sequence[str], rng: Random) -> list[list[str]]:
    """For each of ``names`` a part of them with itself and without the next one; no two parts are equal."""
    found = []
    for at, viewer in enumerate(names):
        lacking = names[(at + 1) % len(names)]
        others = [name for name in names if name not in (viewer, lacking)]
        found.append(sorted([viewer, *rng.sample(others, rng.randint(0, len(others)))]))
    if len(names) == _FEWEST:
        found[-1] = list(names)  # else nobody would ask anybody
    return found


async def _scale(ground: Ground, count: int) -> None:
    """Drain the last of the nodes, one after the other, or start the next ones."""
    while len(ground.nodes) > count:
        await ground.dismiss(ground.nodes[-1])
    missing = [place for place in ground.places[:count] if place not in ground.nodes]
    await in_all(map(ground.enlist, missing))


async def _agreed(nodes: Sequence[NodeProcess]) -> float:
    """Until they agree; how long that took. Raises `FaultFailed`."""
    try:
        return await agreed(nodes)
    except Disagreement as error:
        raise FaultFailed(str(error)) from error


async def _differing(nodes: Sequence[NodeProcess], count: int) -> None:
    """Until there are ``count`` rings. Raises `FaultFailed`."""

    async def differ() -> bool:
        return len(rings(await surveyed(nodes))) >= count

    await until(f"{count} views of the membership make as many rings", differ, _WITHIN_S)


async def _loads(ground: Ground) -> int:
    return sum(number(info, "loads", "loads") for info in (await surveyed(ground.nodes)).values())


def _views(ground: Ground) -> Views:
    if ground.views is None:
        raise FaultFailed("there is one node only: say --nodes 3")
    return ground.views
