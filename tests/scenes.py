"""An audit: one node, foreign writers, clients and auditors, all at once; and smaller stages of it.

``SNAPRING_EXACTNESS_SEED`` is what everything is drawn from.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from random import Random
from time import monotonic
from typing import Final

from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

import nodes
import turmoil
from auditor import Acknowledged, Auditor, Tally, Violation, connect
from cluster.config import CacheConfig, FeedConfig, LoadConfig, NodeConfig, PostgresConfig, RetentionConfig
from cluster.node import Node
from turmoil import CACHES, EVERYDAY, UPHEAVAL, Deed, Writer, keys_of

SEED: Final = int(os.environ.get("SNAPRING_EXACTNESS_SEED") or Random().randrange(2**32))
LIMIT_S: Final = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What an audit takes place in. ``outages``: whether the node loses the database now and then."""

    deeds: Mapping[Deed, float]
    caches: tuple[CacheConfig, ...] = CACHES
    writers: int = 4
    clients: int = 6
    auditors: int = 2
    pace_s: float = 0.008
    memory_bytes: int = 64 * 1024
    feed: FeedConfig = field(default_factory=lambda: FeedConfig(poll_period_s=0.01))
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    outages: bool = False

    def config(self, url: str) -> NodeConfig:
        """The node's configuration."""
        return nodes.config(
            url,
            self.caches,
            memory_bytes=self.memory_bytes,
            feed=self.feed,
            retention=self.retention,
            load=LoadConfig(batch=8, timeout_s=nodes.WITHIN_S),
            postgres=PostgresConfig(url=url, connections=3, statement_timeout_s=nodes.WITHIN_S),
        )


async def audit(
    url: str,
    scene: Scene,
    *,
    seconds: float,
    seed: int,
    least: int = 0,
    during: Callable[[Node], object] = id,
) -> Tally:
    """Let clients, auditors and writers loose on one node. Raises the first `Violation`.

    It takes ``seconds``, and on a busy machine up to `LIMIT_S`, until there have been ``least`` replies.
    """
    rng, acknowledged = Random(seed), Acknowledged()
    undisturbed = asyncio.Event()
    undisturbed.set()
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(nodes.running(scene.config(url)))
        during(node)
        connections = [
            await stack.enter_async_context(await connect(url)) for _ in range(scene.writers + scene.auditors)
        ]
        began_s = monotonic()

        def going() -> bool:
            took_s = monotonic() - began_s
            return took_s < seconds or (took_s < LIMIT_S and auditor.tally.replies < least)

        auditor = Auditor(
            node,
            [key for cache in scene.caches for key in keys_of(cache)],
            acknowledged,
            rng=rng,
            going=going,
        )
        try:
            async with asyncio.TaskGroup() as group:
                for connection in connections[: scene.writers]:
                    writer = Writer(connection, scene.deeds, acknowledged, rng=rng, pace_s=scene.pace_s)
                    group.create_task(writer.work(going, undisturbed))
                for connection in connections[scene.writers :]:
                    group.create_task(auditor.audit(connection))
                for _ in range(scene.clients):
                    group.create_task(auditor.attend())
                group.create_task(_calm(undisturbed, going, rng))
                if scene.outages:
                    group.create_task(_interrupt(url, going, rng))
        except* Violation as violations:
            raise Violation(f"seed {seed}, {auditor.tally}\n{violations.exceptions[0]}") from None
    return auditor.tally


async def _calm(undisturbed: asyncio.Event, going: Callable[[], bool], rng: Random) -> None:
    """Quiet moments, in which what the node says meets what the auditors learn at an equal snapshot."""
    while going():
        await asyncio.sleep(rng.random() * 0.15)
        undisturbed.clear()
        await asyncio.sleep(0.03)
        undisturbed.set()
    undisturbed.set()


async def _interrupt(url: str, going: Callable[[], bool], rng: Random) -> None:
    while going():
        await asyncio.sleep(0.3 + rng.random() * 0.5)
        async with cut_off(url):
            await asyncio.sleep(0.3)


@asynccontextmanager
async def cut_off(url: str) -> AsyncIterator[None]:
    """An outage for the node alone: its connections are cut and no new one is let in."""
    database = conninfo_to_dict(url)["dbname"]
    async with await connect(make_conninfo(url, dbname="postgres")) as operator:
        try:
            await operator.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false".encode())
            await operator.execute(
                b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                b" WHERE datname = %s AND application_name LIKE 'snapring%%'",
                (database,),
            )
            yield
        finally:
            await operator.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true".encode())


SCENES: Final = {
    "everyday": Scene(deeds=EVERYDAY),
    "upheaval": Scene(deeds={**EVERYDAY, **UPHEAVAL}),
    "short memory and outages": Scene(
        deeds=EVERYDAY,
        caches=tuple(replace(cache, max_staleness_s=0.1, stale_if_error_s=60.0) for cache in CACHES),
        memory_bytes=32 * 1024,
        feed=FeedConfig(
            poll_period_s=0.01,
            log_max_changes=20,
            max_changes_per_poll=10,
        ),
        retention=RetentionConfig(period_s=0.05, changes_s=0.2),
        outages=True,
    ),
}


QUICK: Final = Scene(
    deeds=EVERYDAY, caches=(turmoil.ITEM, turmoil.MEMBERS, turmoil.SUMMED), pace_s=0.004, memory_bytes=1 << 20
)
SLOW: Final = replace(QUICK, caches=(turmoil.SLOW,), feed=FeedConfig(poll_period_s=0.002))


@asynccontextmanager
async def staged(
    url: str, caches: tuple[CacheConfig, ...], scene: Scene = QUICK
) -> AsyncIterator[tuple[Node, Auditor, AsyncConnection[TupleRow]]]:
    """A node, an auditor who asks only what he is told to, and the only writer."""
    scene = replace(scene, caches=caches)
    async with nodes.running(scene.config(url)) as node, await connect(url) as writer:
        yield node, Auditor(node, (), Acknowledged(), rng=Random(SEED), going=lambda: True), writer
