"""A node stands still: for a while, until the changes that it has not seen are gone, or for good."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Final

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from scripts.proof.faults.operator import ask, commit, operator, until
from scripts.proof.ground import Ground
from scripts.proof.nodes import NodeProcess

_WITHIN_S: Final = 30.0
_ALL: Final = 1_000_000


async def paused(ground: Ground, rng: Random, *, seconds: float) -> str:
    """SIGSTOP a node, later SIGCONT."""
    async with ground.struck(rng) as node:
        with standing_still(node):
            await asyncio.sleep(seconds)
    return f"{node.name} stood still for {seconds:g} s"


async def killed(ground: Ground, rng: Random, *, longest_s: float = 2.0) -> str:
    """SIGKILL of a node, and its next life a while later."""
    async with ground.struck(rng) as node:
        await node.kill()
        try:
            gone_s = rng.uniform(longest_s / 4, longest_s)
            await asyncio.sleep(gone_s)
        finally:
            await node.start()
    return f"{node.name} was gone for {gone_s:.1f} s"


async def trimmed(ground: Ground, rng: Random, *, longest_s: float = 1.0) -> str:
    """SIGSTOP a node, delete changes that it has not seen, SIGCONT."""
    async with ground.struck(rng) as node, operator(ground.dsn()) as connection:
        with standing_still(node):
            seen = int(await ask(connection, "SELECT pg_snapshot_xmin(pg_current_snapshot())"))
            await asyncio.sleep(rng.uniform(longest_s / 2, longest_s))

            async def gone() -> bool:
                return await _trim(connection) > seen

            await until("changes trimmed past the node", gone, _WITHIN_S)
            position = await ask(connection, "SELECT snapring.trimmed()")
    return f"trimmed to {position}, {node.name} had seen no more than what precedes {seen}"


async def _trim(connection: AsyncConnection[TupleRow]) -> int:
    """Delete what no running transaction needs; up to where."""
    await commit(connection)
    await ask(connection, f"SELECT snapring.trim(pg_snapshot_xmin(pg_current_snapshot()), {_ALL})")
    return int(await ask(connection, "SELECT snapring.trimmed()"))


@contextmanager
def standing_still(node: NodeProcess) -> Iterator[None]:
    """SIGSTOP in this context."""
    node.pause()
    try:
        yield
    finally:
        node.resume()
