"""One of three nodes is killed under load: what the callers of the others notice, and what PostgreSQL does.

Reads at a steady rate, spread over the nodes and over all items, which are all in memory; a writer changes some.
Loads are counted by the nodes. Those that the writer's changes cause are told by a control period before the kill, as
long and with the same load, and are subtracted, in proportion to the writes. Whoever asked the killed node asks
another one. Its name stays in the others' views for a while, as it does where the platform has yet to notice.
"""

import asyncio
from random import Random
from typing import Any, Final

from scripts.benchmarks.several import Several, owners, several
from scripts.benchmarks.traffic import Period, Traffic, caused

ITEMS: Final = 4_500
SWEEPS: Final = 2
NOTICED_S: Final = 2.0

_CACHES: Final[dict[str, dict[str, object]]] = {"item": {}}


async def run(items: int = ITEMS) -> list[dict[str, Any]]:
    """The figures ``node_loss_wrong``, ``node_loss_failed`` and ``node_loss_loads``."""
    async with several(3, rows=items, caches=_CACHES) as ground:
        everybody = tuple(ground.members)
        lost = everybody[-1]
        owned = [item for item, owner in enumerate(owners(everybody, items)) if owner == lost]
        await ground.fill()
        async with Traffic(ground, Random(0)) as traffic:
            seconds = SWEEPS * traffic.sweep_s
            await traffic.during(traffic.sweep_s)
            control = await traffic.during(seconds)
            traffic.excuse(lost)
            after = await traffic.during(seconds, _lose(ground, lost), items=owned)
    return _figures(traffic, control, after, len(owned))


async def _lose(ground: Several, lost: str) -> None:
    """Kill it; later the others hear that it is gone."""
    member = ground.members[lost]
    member.process.kill()
    await member.process.wait()
    await asyncio.sleep(NOTICED_S)
    staying = [each for each in ground.members.values() if each is not member]
    for each in staying:
        ground.tell(each.node, [other.node for other in staying])
    await ground.agree(*(each.name for each in staying))


def _figures(traffic: Traffic, control: Period, after: Period, owned: int) -> list[dict[str, Any]]:
    wrong = traffic.wrong(control, after)
    loads = caused(after, control)
    return [
        {
            "figure": "node_loss_wrong",
            "value": len(wrong),
            "at_most": 0,
            "aim": 0,
            "detail": f"of {len(control.reads) + len(after.reads):,} replies, each against the truth at its snapshot",
        },
        {
            "figure": "node_loss_failed",
            "value": len(after.failures),
            "at_most": 0,
            "aim": 0,
            "detail": f"of {len(after.reads):,} requests, {after.asked_again} of which the killed node had not answered; "
            f"the longest took {after.longest_s * 1e3:.0f} ms, {control.longest_s * 1e3:.0f} ms before"
            + "".join(f"; {failure}" for failure in after.failures[:3]),
        },
        {
            "figure": "node_loss_loads",
            "value": round(max(0.0, loads / owned), 4),
            "at_most": 0.05,
            "aim": 0.01,
            "detail": f"{loads:.0f} loads for {owned:,} entries that it owned: {after.loads} with {after.writes} writes, "
            f"less the {control.loads} with {control.writes} writes of the control period",
        },
    ]
