"""How even the ring is and how little moves in it, for 3 to 20 nodes and for 100: the worst of all sizes.

For nodes that are numbered as a StatefulSet numbers its pods, whose slots are dealt; and for nodes of any other
names, whose slots uhashring places: there chance makes one node larger than another, and the bound on that moves
slots of its own. `scripts/simulate-ring` shows every size.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any, Final

from scripts.ring_simulation.rings import Measured, cast, measure
from snapring.keys import SLOTS

SMALL: Final = range(3, 21)
LARGE: Final = (100,)
LEAVERS: Final = 3


def run(small: Sequence[int] = SMALL, large: Sequence[int] = LARGE) -> list[dict[str, Any]]:
    """The figures ``ring_balance`` and ``ring_moved``, those of ``_100`` nodes, and all four of uhashring's."""
    dealt, placed = (
        [measure(cast(names, zones=1), nodes, LEAVERS) for nodes in (*small, *large)]
        for names in ("numbered", "arbitrary")
    )
    return [
        *_figures(dealt, large, "", moved=1.05),
        *_figures(placed, large, "_uhashring", moved=1.1),
    ]


def _figures(
    rings: Sequence[Measured], large: Sequence[int], kind: str, *, moved: float
) -> list[dict[str, Any]]:
    few = [ring for ring in rings if ring.nodes not in large]
    many = [ring for ring in rings if ring.nodes in large]
    balance, move = (
        "the most slots of one node against the mean",
        "slots that moved against a fair share of them",
    )
    return [
        _figure(f"ring_balance{kind}", max(ring.balance for ring in few), (1.05, 1.02), balance, few),
        _figure(f"ring_moved{kind}", max(map(_moved, few)), (moved, 1.0), move, few),
        _figure(f"ring_balance_100{kind}", max(ring.balance for ring in many), (1.1, 1.02), balance, many),
        _figure(f"ring_moved_100{kind}", max(map(_moved, many)), (moved, 1.0), move, many),
    ]


def _moved(ring: Measured) -> float:
    """The worse of joining and leaving; slots are whole, so a fair share of them is rounded up."""
    joined = ring.moved_on_join * SLOTS / (ring.nodes + 1) / ceil(SLOTS / (ring.nodes + 1))
    left = ring.moved_on_leave_worst * SLOTS / ring.nodes / ceil(SLOTS / ring.nodes)
    return max(joined, left)


def _figure(
    figure: str, value: float, promise: tuple[float, float], what: str, rings: Sequence[Measured]
) -> dict[str, Any]:
    sizes = sorted(ring.nodes for ring in rings)
    return {
        "figure": figure,
        "value": round(value, 4),
        "at_most": promise[0],
        "aim": promise[1],
        "detail": f"{what}; {sizes[0]} to {sizes[-1]} nodes, the worst"
        if len(sizes) > 1
        else f"{what}; {sizes[0]} nodes",
    }
