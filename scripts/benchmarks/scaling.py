"""A fourth node joins three under load, and leaves again by draining: what callers notice, and what moves.

Reads at a steady rate, spread over all nodes that are there and over all items, which are all in memory; a writer
changes some. Loads are counted by the nodes. Those that the writer's changes cause are told by a control period
before, as long and with the same load, and are subtracted, in proportion to the writes. The nodes hear of the change
as they would from DNS, each at a moment of its own. Whose node drains asks another one.
"""

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any, Final

from cluster.local_nodes import LocalNode, plan
from scripts.benchmarks.several import Several, owners, several
from scripts.benchmarks.traffic import Period, Traffic, caused

ITEMS: Final = 4_500
SWEEPS: Final = 2
LEAVES_S: Final = 15.0

_CACHES: Final[dict[str, dict[str, object]]] = {"item": {}}


async def run(items: int = ITEMS) -> list[dict[str, Any]]:
    """The figures ``scaling_wrong``, ``scaling_failed`` and ``scaling_loads``."""
    async with several(3, rows=items, caches=_CACHES) as ground:
        few = tuple(ground.members)
        newcomer = plan(4, first_port=0)[3]
        before, after = owners(few, items), owners((*few, newcomer.name), items)
        moved = [item for item in range(items) if before[item] != after[item]]
        await ground.fill()
        async with Traffic(ground, Random(0)) as traffic:
            seconds = SWEEPS * traffic.sweep_s
            await traffic.during(traffic.sweep_s)
            control = await traffic.during(seconds)
            joined = await traffic.during(seconds, _join(ground, traffic, newcomer), items=moved)
            left = await traffic.during(seconds, _leave(ground, traffic, newcomer), items=moved)
    return _figures(traffic, control, (joined, left), len(moved))


async def _join(ground: Several, traffic: Traffic, newcomer: LocalNode) -> None:
    there = [member.node for member in ground.members.values()]
    await ground.start(newcomer, there)
    for node in there:
        ground.tell(node, [*there, newcomer])
    await ground.agree(*ground.members)
    traffic.spread(*ground.members)


async def _leave(ground: Several, traffic: Traffic, newcomer: LocalNode) -> None:
    """SIGTERM; once it has ended the others no longer find it in their views."""
    leaver = ground.members[newcomer.name]
    traffic.excuse(leaver.name)
    leaver.process.terminate()
    async with asyncio.timeout(LEAVES_S):
        await leaver.process.wait()
    staying = [member.node for member in ground.members.values() if member is not leaver]
    traffic.spread(*(node.name for node in staying))
    for node in staying:
        ground.tell(node, staying)
    await ground.agree(*(node.name for node in staying))


def _figures(
    traffic: Traffic, control: Period, changes: Sequence[Period], moved: int
) -> list[dict[str, Any]]:
    wrong = traffic.wrong(control, *changes)
    failures = [failure for period in changes for failure in period.failures]
    reads = sum(len(period.reads) for period in changes)
    loads = [caused(period, control) for period in changes]
    longest_ms = [period.longest_s * 1e3 for period in (control, *changes)]
    return [
        {
            "figure": "scaling_wrong",
            "value": len(wrong),
            "at_most": 0,
            "aim": 0,
            "detail": f"of {len(control.reads) + reads:,} replies, each against the truth at its snapshot",
        },
        {
            "figure": "scaling_failed",
            "value": len(failures),
            "at_most": 0,
            "aim": 0,
            "detail": f"of {reads:,} requests, {sum(period.asked_again for period in changes)} of which the draining node "
            "left to another; the longest took {:.0f} ms before, {:.0f} ms while one joined, {:.0f} ms while it "
            "left".format(*longest_ms)
            + "".join(f"; {failure}" for failure in failures[:3]),
        },
        {
            "figure": "scaling_loads",
            "value": round(max(0.0, *loads) / moved, 4),
            "at_most": 0.05,
            "aim": 0.01,
            "detail": f"the worse of {loads[0]:.0f} loads on joining and {loads[1]:.0f} on leaving, {moved:,} entries moved "
            f"each time; {control.loads} loads with {control.writes} writes of the control period are subtracted",
        },
    ]
