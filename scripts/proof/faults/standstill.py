"""A node stands still: for a while, until the changes that it has not seen are gone, or for good."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Final

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from scripts.proof.faults.fault import FaultFailed
from scripts.proof.faults.operator import ask, commit, operator, until
from scripts.proof.ground import Ground, NodeProcess

_WITHIN_S: Final = 30.0
_ALL: Final = 1_000_000


async def paused(ground: Ground, rng: Random, *, seconds: float) -> str:  # noqa: ARG001 - as every fault
    """SIGSTOP the node, later SIGCONT."""
    with standing_still(ground.node):
        await asyncio.sleep(seconds)
    return f"stood still for {seconds:g} s"


async def killed(ground: Ground, rng: Random, *, longest_s: float = 2.0) -> str:
    """SIGKILL of any node but the first, and its next life a while later."""
    if len(ground.nodes) == 1:
        raise FaultFailed("there is one node only: say --nodes 3")
    number = rng.randrange(1, len(ground.nodes))
    await ground.nodes[number].kill()
    try:
        gone_s = rng.uniform(longest_s / 4, longest_s)
        await asyncio.sleep(gone_s)
    finally:
        await ground.nodes[number].start()
    return f"node {number} was gone for {gone_s:.1f} s"


async def trimmed(ground: Ground, rng: Random, *, longest_s: float = 1.0) -> str:
    """SIGSTOP the node, delete changes that it has not seen, SIGCONT."""
    async with operator(ground.dsn()) as connection:
        with standing_still(ground.node):
            seen = int(await ask(connection, "SELECT pg_snapshot_xmin(pg_current_snapshot())"))
            await asyncio.sleep(rng.uniform(longest_s / 2, longest_s))

            async def gone() -> bool:
                return await _trim(connection) > seen

            await until("changes trimmed past the node", gone, _WITHIN_S)
            position = await ask(connection, "SELECT snapring.trimmed()")
    return f"trimmed to {position}, the node had seen no more than what precedes {seen}"


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
