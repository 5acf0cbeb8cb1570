"""Hit ratios of the store against other policies, on the same traces: the figure `policy_gap`.

The figure is the worst difference, over all traces and capacities, between the store and the best of
plain S3-FIFO, Theine, Moka and LRU; above zero the store beats every one of them everywhere. Traces are
not part of the project: ``--traces`` names a folder of files as the Caffeine simulator's resources have
them (``.trace.gz`` or ``.trace.xz``; text, or 32- or 64-bit numbers). Without it seeded synthetic traces
take their place. Every entry has the same size, so a capacity is a number of entries; what the policies
remember of entries that left is not counted for any of them.
"""

import gzip
import json
import lzma
import random
import sys
import time
from array import array
from bisect import bisect
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from cluster.config import CacheConfig
from cluster.entries import Entry
from cluster.memory.policy import MAX_FREQUENCY
from cluster.snapshots import Snapshot
from cluster.store import Store, cost_of

AT_LEAST: Final = -0.02
AIM: Final = 0.0
FIRST_ACCESSES: Final = 1_000_000
CAPACITIES: Final[Mapping[str, Sequence[int]]] = {
    "orm-night": (512, 2048),
    "orm-busy": (512, 2048),
    "web07": (512, 1024),
    "web12": (512, 1536),
    "corda": (512, 2048),
    "multi1": (500, 1000),
    "multi2": (800, 1600),
    "multi3": (800, 1600),
    "sprite": (300, 700),
    "loop": (500,),
    "2_pools": (450,),
}
FURTHER_CAPACITIES: Final = (0.05, 0.2)
"""For traces not named above, as parts of the number of different keys."""

Trace = Sequence[int]
Policy = Callable[[Trace, int], int]
"""How many of a trace's accesses hit within a capacity."""


def run(traces: Path | None = None) -> list[dict[str, Any]]:
    """The figure `policy_gap`; its detail has every policy's hit ratio for every trace and capacity."""
    given = sorted(traces.glob("*.trace.*")) if traces else []
    named = {_name(path): path for path in given}
    loads: Iterable[tuple[str, Trace]] = (
        ((name, read(path)) for name, path in named.items()) if named else synthetic().items()
    )
    detail: dict[str, Any] = {"traces": str(traces) if named else "synthetic, none were given"}
    gaps = []
    for name, trace in loads:
        for capacity in _capacities(name, trace):
            compared = compare(trace, capacity)
            gaps.append(compared["gap"])
            detail[f"{name} {capacity}"] = compared
    return [{"figure": "policy_gap", "value": min(gaps), "at_least": AT_LEAST, "aim": AIM, "detail": detail}]


def compare(trace: Trace, capacity: int) -> dict[str, float]:
    """The hit ratio of each policy, and by how much the store's is above the best of the others."""
    ratios = {name: round(hits(trace, capacity) / len(trace), 4) for name, hits in POLICIES.items()}
    best = max(ratio for name, ratio in ratios.items() if name != "store")
    return {**ratios, "gap": round(ratios["store"] - best, 4)}


def store_hits(trace: Trace, capacity: int) -> int:
    """The real store, its budget being what so many of these entries cost."""
    cache, snapshot = CacheConfig(name="trace", sql="SELECT 1"), Snapshot(1, 1)

    def entry(key: bytes) -> Entry:
        return Entry(key=key, cache=cache, value=b"", snapshot=snapshot, loaded_s=0.0, tags=())

    store = Store(capacity * cost_of(entry(_key(0))))
    keys = {number: _key(place) for place, number in enumerate(dict.fromkeys(trace))}
    hits = 0
    for number in trace:
        key = keys[number]
        held = store.index.get(key)
        if held is None:
            store.insert(entry(key))
        else:
            hits += 1
            if held.frequency < MAX_FREQUENCY:
                held.frequency += 1
    return hits


def s3_fifo_hits(trace: Trace, capacity: int) -> int:
    """Plain S3-FIFO: 10 % small, a second use before small passes an entry on, a ghost the size of main."""
    small: deque[int] = deque()
    main: deque[int] = deque()
    ghost: OrderedDict[int, None] = OrderedDict()
    uses: dict[int, int] = {}
    small_size = max(1, capacity // 10)
    hits = 0
    for key in trace:
        if key in uses:
            hits += 1
            uses[key] = min(uses[key] + 1, 3)
            continue
        while len(uses) >= capacity:
            if len(small) >= small_size or not main:
                _from_small(small, main, ghost, uses, capacity - small_size)
            else:
                _from_main(main, uses)
        known = key in ghost
        ghost.pop(key, None)
        (main if known else small).append(key)
        uses[key] = 0
    return hits


def lru_hits(trace: Trace, capacity: int) -> int:
    """Least recently used leaves first."""
    held: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for key in trace:
        if key in held:
            hits += 1
            held.move_to_end(key)
        else:
            if len(held) >= capacity:
                held.popitem(last=False)
            held[key] = None
    return hits


def theine_hits(trace: Trace, capacity: int) -> int:
    """Theine's adaptive W-TinyLFU."""
    from theine import Cache  # noqa: PLC0415 - wanted for comparison only

    cache: Any = Cache(capacity)
    hits = 0
    for key in trace:
        if cache.get(key)[1]:
            hits += 1
        else:
            cache.set(key, True)
    return hits


def moka_hits(trace: Trace, capacity: int) -> int:
    """Moka's TinyLFU."""
    from moka_py import Moka  # noqa: PLC0415 - wanted for comparison only

    cache: Any = Moka(capacity)
    hits = 0
    for key in trace:
        if cache.get(key) is not None:
            hits += 1
        else:
            cache.set(key, True)
    return hits


POLICIES: Final[Mapping[str, Policy]] = {
    "store": store_hits,
    "s3_fifo": s3_fifo_hits,
    "theine": theine_hits,
    "moka": moka_hits,
    "lru": lru_hits,
}


def read(path: Path) -> Trace:
    """The keys of a trace file; lines that are not numbers are marks between phases."""
    raw = (gzip.open if path.suffix == ".gz" else lzma.open)(path).read()
    if path.suffix == ".xz" or not raw[:1_000].isascii() or b"\n" not in raw[:1_000]:
        numbers = array("i" if path.suffix == ".xz" else "q")
        numbers.frombytes(raw[: numbers.itemsize * min(FIRST_ACCESSES, len(raw) // numbers.itemsize)])
        return numbers
    lines = raw.split(b"\n")
    return array("q", (int(line) for line in lines if line.strip().isdigit()))[:FIRST_ACCESSES]


def synthetic() -> dict[str, Trace]:
    """Loads of the kinds that tell policies apart, made with a fixed seed."""
    chance = random.Random(7)
    weights = list(accumulate(1 / (rank + 1) for rank in range(10_000)))
    zipf = [bisect(weights, chance.random() * weights[-1]) for _ in range(100_000)]
    moving = [(rank * 7_919 + place // 10_000 * 1_009) % 10_000 for place, rank in enumerate(zipf)]
    return {
        "zipf": zipf,
        "moving zipf": moving,
        "zipf and scans": [
            rank if place % 10_000 < 7_500 else 10_000 + place for place, rank in enumerate(zipf)
        ],
        "loop": [place % 1_000 for place in range(100_000)],
        "zipf and a loop": [rank if place % 2 else 10_000 + place % 3_000 for place, rank in enumerate(zipf)],
    }


def _capacities(name: str, trace: Trace) -> Sequence[int]:
    known = CAPACITIES.get(name)
    different = len(set(trace))
    return known or tuple(max(10, round(different * part)) for part in FURTHER_CAPACITIES)


def _name(path: Path) -> str:
    return path.name.split(".trace")[0]


def _key(number: int) -> bytes:
    return b"trace:%010d" % number


def _from_small(
    small: deque[int], main: deque[int], ghost: OrderedDict[int, None], uses: dict[int, int], ghosts: int
) -> None:
    key = small.popleft()
    if uses[key] > 1:
        uses[key] = 0
        main.append(key)
        return
    del uses[key]
    ghost[key] = None
    if len(ghost) > ghosts:
        ghost.popitem(last=False)


def _from_main(main: deque[int], uses: dict[int, int]) -> None:
    key = main.popleft()
    if uses[key]:
        uses[key] -= 1
        main.append(key)
    else:
        del uses[key]


def main() -> None:
    """Print the figure, for the folder of traces named on the command line if one is."""
    began_s = time.perf_counter()
    print(json.dumps(run(Path(sys.argv[1]) if len(sys.argv) > 1 else None), indent=2))
    print(f"{time.perf_counter() - began_s:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
