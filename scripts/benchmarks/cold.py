"""Cold reads through the node, against asking PostgreSQL directly through a pool, for the same rows.

64 callers, each waiting for its answer before it asks again; every row is asked for once, so the node
loads every one. Direct and through the node take turns, in one process, on rows that PostgreSQL has in
memory; the figure is the median of the rounds' ratios.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from statistics import median
from typing import Any, Final

import msgpack
import psycopg
import uvloop
from psycopg_pool import AsyncConnectionPool

from scripts.demonstration.resp import Resp
from scripts.demonstration.stage import HOST, Stage, node, stage
from scripts.demonstration.workload import ACCOUNTS_PER_BRANCH

CALLERS: Final = 64
POOL: Final = 8
ROUNDS: Final = 6
ROWS: Final = ACCOUNTS_PER_BRANCH // (ROUNDS + 1)

_SQL: Final = "SELECT aid, bid, abalance FROM pgbench_accounts WHERE aid = %s"

Ask = Callable[[int], Awaitable[object]]


def run() -> list[dict[str, Any]]:
    """The figure ``cold_vs_direct``."""
    return uvloop.run(_measure())


async def _measure() -> list[dict[str, Any]]:
    async with AsyncExitStack() as stack:
        ready = await stack.enter_async_context(stage(None, scale=1))
        await stack.enter_async_context(node(ready))
        await _warm(ready)
        pool = AsyncConnectionPool(ready.url, min_size=POOL, max_size=POOL, open=False)
        await stack.enter_async_context(pool)
        await pool.wait()
        clients = [await Resp.open(HOST, ready.port) for _ in range(CALLERS)]
        direct: list[Ask] = [partial(_directly, pool)] * CALLERS
        through: list[Ask] = [partial(_through_the_node, client) for client in clients]
        rounds = [await _round(number, direct, through) for number in range(ROUNDS + 1)][1:]
        for client in clients:
            await client.close()
    return [
        {
            "figure": "cold_vs_direct",
            "value": round(median(through / direct for direct, through in rounds), 3),
            "at_least": 1.2,
            "aim": 2.0,
            "detail": f"{median(through for _, through in rounds):,.0f} reads/s through the node, "
            f"{median(direct for direct, _ in rounds):,.0f} through psycopg_pool of {POOL}; {CALLERS} callers, "
            f"median of {ROUNDS} rounds of {ROWS:,} rows",
        }
    ]


async def _warm(ready: Stage) -> None:
    async with await psycopg.AsyncConnection.connect(ready.url) as connection:
        await connection.execute("SELECT sum(abalance) FROM pgbench_accounts")


async def _round(number: int, direct: list[Ask], through: list[Ask]) -> tuple[float, float]:
    """Reads per second, directly and through the node, of one round's rows; who begins alternates."""
    rows = range(number * ROWS + 1, (number + 1) * ROWS + 1)
    if number % 2:
        through_per_s = await _rate(rows, through)
        return await _rate(rows, direct), through_per_s
    direct_per_s = await _rate(rows, direct)
    return direct_per_s, await _rate(rows, through)


async def _rate(rows: range, callers: list[Ask]) -> float:
    waiting = iter(rows)
    began_s = time.perf_counter()
    await asyncio.gather(*(_call(ask, waiting) for ask in callers))
    return len(rows) / (time.perf_counter() - began_s)


async def _call(ask: Ask, waiting: Iterator[int]) -> None:
    for row in waiting:
        await ask(row)


async def _directly(pool: AsyncConnectionPool[Any], row: int) -> object:
    async with pool.connection() as connection:
        found = await (await connection.execute(_SQL, [row])).fetchone()
        assert found is not None, f"no row {row}"
        return found


async def _through_the_node(client: Resp, row: int) -> object:
    (reply,) = await client.ask([(b"GET", b"account_by_id:%d" % row)])
    assert isinstance(reply, bytes), f"row {row}: {reply!r}"
    return msgpack.unpackb(reply)
