"""Run one node as a process: its doors, its feed, its peers, and an orderly end.

SIGTERM and SIGINT drain: the other nodes leave this one out of their rings, no new connections, what is under way
gets an answer or a typed error, then the process ends. If the feed, a door or the membership dies of a defect,
so does the process: a node that no longer follows the database must not linger. SIGHUP has the keys file and the
certificates looked at, or ends the process as SIGTERM does: who starts it says which.
"""

import asyncio
import gc
import logging
import signal
from collections.abc import Callable
from typing import Final

import psycopg
import uvloop

from cluster import ending, logs
from cluster.access.guard import Guard
from cluster.assembly import Assembly
from cluster.config import NodeConfig
from cluster.plans import Plan, Plans
from cluster.postgres import Connection, connect, translate
from snapring.errors import CacheRefused, CatalogChanging, ConfigInvalid, SnapringError

_log: Final = logging.getLogger("snapring")

_GC_THRESHOLDS: Final = (5_000, 10, 2**31 - 1)
_GC_PERIOD_S: Final = 600.0
"""Python's full collections walk every entry (a third of a second for a million) whenever memory has grown
by a quarter. Entries are in no cycles, so young collections stay automatic and full ones come rarely."""


def run(config: NodeConfig, *, ready: Callable[[int], None] | None = None, hangup_ends: bool = False) -> int:
    """Serve until told to stop; the exit code. ``ready`` is called with the RESP port once it listens.

    Raises `ConfigInvalid` if Postgres answers and a cache's SQL cannot be cached exactly.
    """
    logs.begin(config.log, node=config.name)
    gc.set_threshold(*_GC_THRESHOLDS)
    uvloop.run(_serve(config, ready, hangup_ends=hangup_ends))
    return 0


async def _serve(config: NodeConfig, ready: Callable[[int], None] | None, *, hangup_ends: bool) -> None:
    guard = Guard(config)
    await check_caches(config)
    process = Assembly(config, guard, ready)
    stop = _stop_signal()
    if not hangup_ends:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, guard.watch.stir)
    running = process.begin()
    collecting = asyncio.create_task(_collect_garbage(), name="garbage collection")
    try:
        await _until_told(stop, running)
        _log.info("node %s drains for at most %g s", config.name, config.drain_timeout_s)
        await process.drain()
    finally:
        for task in (*running, collecting):
            task.cancel()
        await asyncio.gather(*running, collecting, return_exceptions=True)
        await process.stop()


async def _until_told(stop: asyncio.Event, running: set[asyncio.Task[None]]) -> None:
    """Until ``stop``, or the end of anything that should be ``running``, whose error is raised."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    done, _ = await asyncio.wait({*running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    for task in done:
        task.result()


async def check_caches(config: NodeConfig) -> None:
    """Refuse to start with caches that cannot be exact; every one of them named.

    Where Postgres cannot be reached the node starts all the same, and tries until it can.
    """
    plans = Plans(config.caches)
    try:
        connection = await connect(config.postgres, application_name="snapring start")
    except SnapringError as error:
        _log.warning("%s; the node starts and keeps trying", error)
        return
    async with connection:
        refused = []
        for name in config.caches:
            try:
                async with asyncio.timeout(config.load.timeout_s):
                    await _try(await plans.get(name, connection), connection)
            except CacheRefused as refusal:
                refused.append(str(refusal))
            except TimeoutError:
                _log.warning("Postgres does not answer in time; the node starts and keeps trying")
                break
            except CatalogChanging as error:
                _log.warning("%s: the node starts and keeps trying", error)
                break
            except psycopg.Error as error:
                if not translate(error).retryable:
                    raise
                _log.warning("%s; the node starts and keeps trying", translate(error))
                break
    if refused:
        raise ConfigInvalid(refused)


async def _try(plan: Plan, connection: Connection) -> None:
    """Say it in the log where Postgres would not let this role run ``plan``, which nothing else shows before a read."""
    try:
        await connection.execute(f"EXPLAIN {plan.sql}", [None] * plan.parameters, prepare=False)
    except psycopg.errors.InsufficientPrivilege as denied:
        _log.warning("cache %s: %s: its reads fail until this role is GRANTed that", plan.cache.name, denied)


async def _collect_garbage() -> None:
    while True:
        await asyncio.sleep(_GC_PERIOD_S)
        gc.collect()


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    ending.when_told(stop.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    return stop
