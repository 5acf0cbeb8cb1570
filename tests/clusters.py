"""Several nodes that act as one, each a real process, on one database under capture."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis

from cluster.local_nodes import Running, plan, running, shared_secret
from nodes import WITHIN_S, captured

CACHES = """
[caches.user]
sql = "SELECT id, name FROM users WHERE id = $1"
single = true
encoding = "json"

[caches.pages]
kind = "store"
"""


@asynccontextmanager
async def cluster(
    folder: Path, url: str, *settings: str, count: int = 3, log: Callable[[str], None] = print
) -> AsyncIterator[list[Running]]:
    """``count`` nodes on the database at ``url``, once each knows the others' doors. They have ended afterwards."""
    file = folder / "snapring.toml"
    file.write_text(CACHES)
    async with (
        captured(url),
        running(
            plan(count, first_port=0),
            words=["--config", str(file), "--feed.poll_period=10ms", *settings],
            environment={"SNAPRING_POSTGRES__URL": url, **shared_secret()},
            drain_timeout_s=WITHIN_S,
            log=log,
        ) as nodes,
    ):
        await introduced(nodes)
        yield nodes


@asynccontextmanager
async def clients(nodes: Sequence[Running]) -> AsyncIterator[list[Redis]]:
    """A client to each node."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(Redis(port=each.node.port, protocol=3, decode_responses=True))
            for each in nodes
        ]


async def agreed(nodes: Sequence[Running]) -> None:
    """Wait until each of ``nodes`` knows that all of them, and nobody else, make up its ring."""
    async with asyncio.timeout(WITHIN_S), clients(nodes) as asked:
        while True:
            rings = {await _ring(client) for client in asked}
            if len(rings) == 1 and rings.pop()[1] == len(nodes):
                return
            await asyncio.sleep(0.02)


async def introduced(nodes: Sequence[Running]) -> None:
    """Wait until each of ``nodes`` can say where clients find the others."""
    async with asyncio.timeout(WITHIN_S), clients(nodes) as asked:
        while not all([await _knows_doors(client, len(nodes) - 1) for client in asked]):
            await asyncio.sleep(0.02)


async def _knows_doors(client: Redis, count: int) -> bool:
    found = await client.info("peers")
    return sum(bool(peer["door"]) for name, peer in found.items() if name.startswith("peer")) == count


async def _ring(client: Redis) -> tuple[str, int]:
    """The epoch of a node's ring, and how many make it up."""
    found = await client.info("peers")
    sharing = sum(peer["share"] > 0 for name, peer in found.items() if name.startswith("peer"))
    return str(found["epoch"]), sharing + (found["share"] > 0)
