"""How much the process grows against the budget it was given: the figure `memory_growth`.

Each case runs in a process of its own, through the real store with real entries: a key, a key-grain and a
bulk tag, snapshots shared by what was loaded together, some entries ended by changes, some with a time
to live. After churn of five times the budget the growth of the resident set is divided by the budget.
Nothing is handed back to the system by hand: neither ``gc.collect`` nor ``malloc_trim``.
"""

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from cluster.config import CacheConfig
from cluster.entries import End, Entry
from cluster.snapshots import Snapshot
from cluster.store import Store

MIB: Final = 2**20
BUDGET_BYTES: Final = 192 * MIB
CHURN: Final = 5
AT_MOST: Final = 1.25
AIM: Final = 1.1
_BULK_TAG: Final = 2**64 + 2 * 16_384 + 1
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

Sizes = Callable[[random.Random, float], int]
"""The size of the next value, by how much of the churn is done (0 to 1)."""


def _mixed(chance: random.Random, _done: float) -> int:
    return int(20 * 5_120 ** chance.random())


def _shifting(_chance: random.Random, done: float) -> int:
    return (20, 102_400, 1_024, 20, 8_192)[min(int(done * 5), 4)]


CASES: Final[dict[str, Sizes]] = {
    "20 B": lambda _chance, _done: 20,
    "100 B": lambda _chance, _done: 100,
    "1 KiB": lambda _chance, _done: 1_024,
    "100 KiB": lambda _chance, _done: 102_400,
    "20 B to 100 KiB, mixed": _mixed,
    "20 B, 100 KiB, 1 KiB, 20 B, 8 KiB in turn": _shifting,
}
JUDGED: Final = ("20 B", "100 B", "1 KiB", "100 KiB", "20 B to 100 KiB, mixed")


def run(budget_bytes: int = BUDGET_BYTES) -> list[dict[str, Any]]:
    """The figure `memory_growth`: the worst of `JUDGED` at its highest; the other cases are for information."""
    judged = {case: _in_process(case, budget_bytes) for case in JUDGED}
    further = {case: _in_process(case, budget_bytes) for case in CASES if case not in JUDGED}
    further["20 B, no two loaded together"] = _in_process("20 B", budget_bytes, batch=1)
    return [
        {
            "figure": "memory_growth",
            "value": max(case["highest"] for case in judged.values()),
            "at_most": AT_MOST,
            "aim": AIM,
            "detail": {
                "budget_bytes": budget_bytes,
                "lowest": min(case["ratio"] for case in judged.values()),
                "judged": judged,
                "not judged": further,
            },
        }
    ]


def churn(sizes: Sizes, budget_bytes: int, batch: int) -> dict[str, float]:
    """Push five budgets' worth of entries through a store; the growth of this process, in budgets."""
    chance = random.Random(20)
    store = Store(budget_bytes)
    before = _resident_bytes()
    highest = 0
    for step, entry in enumerate(_loads(chance, sizes, store, budget_bytes, batch)):
        store.insert(entry)
        if step % 50 == 0:
            _end_one(store, chance, entry)
        if step % 2_000 == 0:
            highest = max(highest, _resident_bytes() - before)
    growth = _resident_bytes() - before
    return {
        "ratio": round(growth / budget_bytes, 3),
        "highest": round(max(highest, growth) / budget_bytes, 3),
        "filled": round(store.bytes / budget_bytes, 3),
        "entries": len(store),
    }


def _loads(
    chance: random.Random, sizes: Sizes, store: Store, budget_bytes: int, batch: int
) -> Iterator[Entry]:
    """Misses of skewed reads, loaded in batches of one snapshot, each with a copy of its value's bytes."""
    cache = CacheConfig(name="orders_by_customer", sql="SELECT 1")
    lasting = CacheConfig(name="prices", sql="SELECT 1", ttl_s=600.0)
    noise = chance.randbytes(128 * 1_024)
    loaded, loads, snapshot = 0, 0, Snapshot(1, 1)
    while loaded < CHURN * budget_bytes:
        size = sizes(chance, loaded / CHURN / budget_bytes)
        customer = int(chance.paretovariate(0.5) * budget_bytes / (size + 700) / 4) % 10**10
        key = b"%s:%d" % ((lasting if customer % 10 == 0 else cache).name.encode(), customer)
        held = store.index.get(key)
        if held is not None and held.end is None:
            held.frequency = min(held.frequency + 1, 3)
            loaded += 50  # or a hot set that fits would never end
            continue
        if loads % batch == 0:
            snapshot = Snapshot(1_000_000 + loads, 1_000_100 + loads, (1_000_050 + loads,))
        loads += 1
        loaded += size + len(key) + 500
        now_s = loads / 1_000
        at = chance.randrange(len(noise) - size)
        yield Entry(
            key=key,
            cache=lasting if customer % 10 == 0 else cache,
            value=noise[at : at + size],
            snapshot=snapshot,
            loaded_s=now_s,
            tags=(hash(key), _BULK_TAG),
            until_s=now_s + 600.0 if customer % 10 == 0 else float("inf"),
        )


def _end_one(store: Store, chance: random.Random, latest: Entry) -> None:
    """A change ends an entry, by its tag as the feed does."""
    for entry in store.tagged(latest.tags[0]):
        xid = latest.snapshot.xmax + chance.randrange(100)
        entry.ended(End((xid,), latest.snapshot, latest.loaded_s))
        store.retire(entry)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def _in_process(case: str, budget_bytes: int, batch: int = 64) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", case, "--budget", str(budget_bytes), "--batch", str(batch)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    """Run one case in this process, or all of them in processes of their own; print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--budget", type=int, default=BUDGET_BYTES)
    parser.add_argument("--batch", type=int, default=64)
    chosen = parser.parse_args()
    if chosen.case:
        print(json.dumps(churn(CASES[chosen.case], chosen.budget, chosen.batch)))
    else:
        print(json.dumps(run(chosen.budget), indent=2))


if __name__ == "__main__":
    main()
