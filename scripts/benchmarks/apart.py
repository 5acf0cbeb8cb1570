"""The Python client's `get_many` of 100 keys on three nodes: each owner asked for its own, against one node for all.

Both in turn, in one run, on keys that owners and backups have in memory. Whoever is asked for all of them
forwards two thirds.
"""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from statistics import median
from time import perf_counter
from typing import Any, Final

from scripts.benchmarks.several import Several, several
from snapring import AsyncClient, Client

KEYS: Final = 100
READS: Final = 60
ROUNDS: Final = 7
_ROWS: Final = 6000
_HOST: Final = "127.0.0.1"

Batch = list[str]
Duration = Callable[[], Awaitable[float]]


async def figures(rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """How many times as fast, sync and async."""
    async with several(3, rows=_ROWS, caches={"item": {}}) as ground:
        await ground.fill()
        return [await _threads(ground, rounds), await _tasks(ground, rounds)]


async def _threads(ground: Several, rounds: int) -> dict[str, Any]:
    with Client(_doors(ground)) as apart, Client(_doors(ground), routed=False) as whole:

        def read(client: Client) -> float:
            began_s = perf_counter()
            for batch in _batches():
                client.get_many(batch, one_snapshot=False)
            return perf_counter() - began_s

        return await _compared(
            "sync", lambda: asyncio.to_thread(read, apart), lambda: asyncio.to_thread(read, whole), rounds
        )


async def _tasks(ground: Several, rounds: int) -> dict[str, Any]:
    async with AsyncClient(_doors(ground)) as apart, AsyncClient(_doors(ground), routed=False) as whole:

        async def read(client: AsyncClient) -> float:
            began_s = perf_counter()
            for batch in _batches():
                await client.get_many(batch, one_snapshot=False)
            return perf_counter() - began_s

        return await _compared("async", lambda: read(apart), lambda: read(whole), rounds)


async def _compared(colour: str, apart: Duration, whole: Duration, rounds: int) -> dict[str, Any]:
    """Each first as often as second, after one round that does not count."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for which in (0, 1) if number % 2 else (1, 0):
            took_s = await (apart, whole)[which]()
            if number:
                seconds[which].append(took_s)
    ratios = sorted(slow / fast for fast, slow in zip(*seconds, strict=True))
    keys_a_round = KEYS * READS
    detail = {
        "apart_keys_per_s": round(keys_a_round / median(seconds[0])),
        "whole_keys_per_s": round(keys_a_round / median(seconds[1])),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "keys": KEYS,
        "nodes": 3,
    }
    return {
        "figure": f"client_get_many_apart_{colour}",
        "value": round(median(ratios), 3),
        "at_least": 1.0,
        "aim": 1.5,
        "detail": detail,
    }


def _batches() -> list[Batch]:
    random = Random(1)
    return [[f"item:{number}" for number in random.sample(range(_ROWS), KEYS)] for _ in range(READS)]


def _doors(ground: Several) -> list[str]:
    return [f"{_HOST}:{member.port}" for member in ground.members.values()]
