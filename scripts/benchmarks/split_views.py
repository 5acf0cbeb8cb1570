"""Two of three nodes disagree on who is there: wrong replies, the longest request, and how far a request travels.

One node does not know of another one for a while; the two others know of all. So one forwards to a node that believes
a third one to be the owner. Hops are counted one question at a time, by what all nodes count as forwarded, for keys
that two nodes give to different owners, in memory and not. Then there are steady reads while a writer changes what
they read, each reply judged at its snapshot.
"""

from collections.abc import Sequence
from random import Random
from typing import Any, Final

from scripts.benchmarks.several import Several, owners, several
from scripts.benchmarks.traffic import Period, Traffic
from scripts.demonstration.resp import Resp

SPLIT_S: Final = 30.0
ITEMS: Final = 3_000
QUESTIONS: Final = 100

_HOST: Final = "127.0.0.1"
_CACHES: Final[dict[str, dict[str, object]]] = {"item": {}}
_DEADLINE_S: Final = 5.0


async def run(seconds: float | None = None, items: int = ITEMS) -> list[dict[str, Any]]:
    """The figures ``split_views_wrong``, ``_failed``, ``_longest`` and ``_hops``."""
    deadline = f"--node.request_timeout={_DEADLINE_S:g}s"
    async with several(3, rows=items, caches=_CACHES, options=(deadline,)) as ground:
        apart = await _split(ground)
        hops = [await _hops(ground, apart[:QUESTIONS]), await _hops(ground, apart[:QUESTIONS])]
        async with Traffic(ground, Random(0)) as traffic:
            period = await traffic.during(seconds or SPLIT_S)
            mismatches = await ground.total("epoch_mismatches")
        if not mismatches:
            raise RuntimeError("the nodes did not disagree")
    return _figures(traffic, period, max(hops), mismatches)


async def _split(ground: Several) -> list[int]:
    """Have one node know only a part of the others; the items on whose owner the nodes then disagree."""
    blind, known, unknown = ground.members
    ground.tell(ground.members[blind].node, [ground.members[known].node])
    await ground.believes(blind, (blind, known))
    await ground.believes(known, (blind, known, unknown))
    partly = owners((blind, known), ground.rows)
    fully = owners((blind, known, unknown), ground.rows)
    return [item for item in range(ground.rows) if partly[item] != fully[item]]


async def _hops(ground: Several, items: Sequence[int]) -> int:
    """The most forwards that one question to one node has caused at all nodes."""
    most = 0
    for member in ground.members.values():
        client = await Resp.open(_HOST, member.port)
        before = await ground.total("forwarded")
        for item in items:
            (reply,) = await client.ask([(b"GET", b"item:%d" % item)])
            if not isinstance(reply, bytes):
                raise TypeError(f"item {item} was answered {reply!r}")
            after = await ground.total("forwarded")
            most, before = max(most, after - before), after
        await client.close()
    return most


def _figures(traffic: Traffic, period: Period, hops: int, mismatches: int) -> list[dict[str, Any]]:
    return [
        {
            "figure": "split_views_wrong",
            "value": len(traffic.wrong(period)),
            "at_most": 0,
            "aim": 0,
            "detail": f"of {len(period.reads):,} replies, each against the truth at its snapshot; {mismatches:,} messages "
            "from a node with another ring",
        },
        {
            "figure": "split_views_failed",
            "value": len(period.failures),
            "at_most": 0,
            "aim": 0,
            "detail": f"of {len(period.reads):,} requests"
            + "".join(f"; {each}" for each in period.failures[:3]),
        },
        {
            "figure": "split_views_longest",
            "value": round(period.longest_s / _DEADLINE_S, 4),
            "at_most": 1.0,
            "aim": 0.2,
            "detail": f"the longest request took {period.longest_s * 1e3:.0f} ms, against its deadline of {_DEADLINE_S:g} s",
        },
        {
            "figure": "split_views_hops",
            "value": hops,
            "at_most": 1,
            "aim": 1,
            "detail": f"the most nodes that one question was forwarded to, of {6 * QUESTIONS:,} asked one at a time",
        },
    ]
