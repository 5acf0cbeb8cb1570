"""PostgreSQL comes back from a crash, and a thousand callers wait for a thousand keys.

The crash voids all that the node had in memory, so every key must be loaded anew. Each caller asks for a
key of its own, again and again, as an application does that tries again after an error. Counted from the
moment at which PostgreSQL accepts connections.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any, Final

from cluster.config import PostgresConfig
from scripts.benchmarks.breakable import ROWS, Breakable, breakable, node
from scripts.demonstration.node_info import parsed
from scripts.demonstration.resp import Resp
from scripts.proof.proxy import HOST

ROUNDS: Final = 5
CONNECTIONS: Final = 20
OUTAGE_S: Final = 2.0
RETRY_S: Final = 0.1

_GIVE_UP_S: Final = 30.0
_KEYS: Final = range(1, ROWS + 1)


async def run() -> list[dict[str, Any]]:
    """The figures ``recovery_connections`` and ``recovery_s``."""
    async with breakable() as ground:
        took_s = sorted([await _round(ground) for _ in range(ROUNDS)])
        peaks = ground.turnstile.peaks
    limit = PostgresConfig(url="").connections
    return [
        {
            "figure": "recovery_connections",
            "value": peaks["snapring loader"],
            "at_most": limit,
            "aim": limit,
            "detail": f"the most that loads held at once, {limit} configured; {peaks['']} with the feed's and others",
        },
        {
            "figure": "recovery_s",
            "value": round(took_s[-1], 3),
            "at_most": 3.0,
            "aim": 1.0,
            "detail": f"until {ROWS:,} callers had their keys and memory answers every one, the slowest of {ROUNDS} "
            f"crashes, median {took_s[ROUNDS // 2]:.2f} s; callers try again every {RETRY_S * 1e3:.0f} ms",
        },
    ]


async def _round(ground: Breakable) -> float:
    """Seconds from PostgreSQL's return until every key is a hit again."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(node(ground, {"item": {}}))
        clients = [await Resp.open(HOST, ground.port) for _ in range(CONNECTIONS)]
        for client in clients:
            stack.push_async_callback(client.close)
        await _all_answered(clients)
        ground.server.kill()
        await asyncio.sleep(OUTAGE_S)
        waiting = asyncio.create_task(_all_answered(clients))
        await asyncio.sleep(RETRY_S)
        if waiting.done():
            raise RuntimeError("the callers were answered while PostgreSQL was down")
        await asyncio.to_thread(ground.server.start)
        back_s = time.monotonic()
        await waiting
        await _all_hits(clients[0])
        return time.monotonic() - back_s


async def _all_answered(clients: list[Resp]) -> None:
    """Every caller has its answer; those of one connection ask together."""
    async with asyncio.timeout(_GIVE_UP_S):
        await asyncio.gather(
            *(_answered(client, set(_KEYS[at::CONNECTIONS])) for at, client in enumerate(clients))
        )


async def _answered(client: Resp, waiting: set[int]) -> None:
    while waiting:
        asked = list(waiting)
        replies = await client.ask([(b"GET", b"item:%d" % item) for item in asked])
        waiting -= {item for item, reply in zip(asked, replies, strict=True) if isinstance(reply, bytes)}
        if waiting:
            await asyncio.sleep(RETRY_S)


async def _all_hits(client: Resp) -> None:
    """Raise unless memory answers every key."""
    (before,) = await client.ask([(b"INFO",)])
    await client.ask([(b"GET", b"item:%d" % item) for item in _KEYS])
    (after,) = await client.ask([(b"INFO",)])
    misses = int(parsed(after)["misses"]) - int(parsed(before)["misses"])
    if misses:
        raise RuntimeError(f"{misses} of {ROWS} keys were answered, but are not in memory")
