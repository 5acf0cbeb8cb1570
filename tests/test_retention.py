"""Deleting what is past: by one node at a time, never sooner than promised, and without a word to the breaker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import psycopg
import pytest

from cluster.breaker import Breaker
from cluster.config import BreakerConfig, PostgresConfig, RetentionConfig
from cluster.postgres import Sessions
from cluster.requests import Source
from cluster.retention import Retention
from nodes import captured, caught_up, config, read, running, until
from servers import Server
from writes import Connection, connected, installed, rows, value

CONFIG = RetentionConfig(changes_s=60.0, history_s=100.0, batch=10)
HELD = "SELECT (SELECT count(*) FROM snapring.changes), (SELECT count(*) FROM snapring.history)"
NOTHING = [(0, 0)]


class Sweeper:
    """A Retention with a clock of its own."""

    def __init__(self, url: str, kept: RetentionConfig = CONFIG) -> None:
        self.now_s = 0.0
        self.breaker = Breaker(BreakerConfig())
        sessions = Sessions(PostgresConfig(url=url))
        self.retention = Retention(
            sessions=sessions, config=kept, breaker=self.breaker, clock=lambda: self.now_s
        )

    async def after(self, elapsed_s: float) -> None:
        """One attempt, that much later."""
        self.now_s += elapsed_s
        await self.retention.attempt()


@asynccontextmanager
async def sweeping(url: str, kept: RetentionConfig = CONFIG) -> AsyncIterator[Sweeper]:
    """A sweeper that lets go of the database at the end."""
    sweeper = Sweeper(url, kept)
    try:
        yield sweeper
    finally:
        await sweeper.retention._disconnect()


async def write(db: Connection, times: int = 1) -> None:
    """New versions of one key, each of which leaves a change."""
    for n in range(times):
        await rows(db, "SELECT snapring.write('{c:a}', %s, '{NULL}')", [b"%d" % n])


async def test_each_kind_is_kept_for_its_own_time(database: str) -> None:
    """What is younger than asked stays; the history's floor rises with what goes."""
    async with installed(database) as db, sweeping(database) as sweeper:
        await write(db, 3)
        for elapsed_s, held in ((0, True), (59, True), (1, False)):
            await sweeper.after(elapsed_s)
            assert bool(await value(db, "SELECT count(*) FROM snapring.changes")) is held
        assert (await rows(db, HELD))[0][1] == 2
        await sweeper.after(39)
        assert (await rows(db, HELD))[0][1] == 2
        assert await value(db, "SELECT floor::text FROM snapring.history_floor") == "0"
        await sweeper.after(1)
        assert await rows(db, HELD) == NOTHING
        assert await value(db, "SELECT floor > '0' FROM snapring.history_floor")
        assert (sweeper.retention.history, sweeper.retention.rounds) == (2, 5)


async def test_one_round_takes_small_steps_until_nothing_is_left(database: str) -> None:
    """More than a batch, also where many rows have one transaction id, or one row outweighs a step."""
    async with installed(database) as db, sweeping(database) as sweeper:
        await write(db, 30)
        await rows(db, "SELECT snapring.write('{c:big,c:bigger}', %s, '{NULL,NULL}')", [b"x" * 2**24] * 2)
        await rows(db, "SELECT snapring.write('{c:big,c:bigger}', '{NULL,NULL}', '{NULL,NULL}')")
        many = "SELECT snapring.write(array_agg('c:' || n), array_agg(%s::bytea), array_agg(NULL::bigint)) FROM generate_series(1, 25) n"
        for _ in range(2):
            await rows(db, many, b"x" * 1000)
        for elapsed_s in (0, 60, 40):
            await sweeper.after(elapsed_s)
        assert await rows(db, HELD) == NOTHING
        assert sweeper.retention.history == 29 + 25 + 2


async def test_one_node_sweeps_until_its_session_ends(database: str) -> None:
    """Then another takes over, and the time in between counts for nothing."""
    async with installed(database) as db, sweeping(database) as one, sweeping(database) as other:
        await one.after(0)
        await write(db, 2)
        await one.after(50)
        await other.after(1000)
        assert (one.retention.holder, other.retention.holder) == (True, False)
        await one.retention._disconnect()
        await other.after(1000)
        assert other.retention.holder
        assert (await rows(db, HELD))[0][1] == 1, "nobody knows that more than 50 s have passed"
        await other.after(100)
        assert await rows(db, HELD) == NOTHING


async def test_a_running_transaction_holds_on_to_what_it_may_ask_for(database: str) -> None:
    """The cut is the oldest snapshot's xmin: what a token kept for long enough can name is there."""
    async with installed(database) as db, connected(database) as old, sweeping(database) as sweeper:
        await old.execute("BEGIN; SELECT pg_current_xact_id()")
        await write(db)
        token = await value(db, "SELECT pg_current_snapshot()::text")
        await write(db)
        for elapsed_s in (0, 99, 99):
            await sweeper.after(elapsed_s)
        await old.execute("COMMIT")
        found = "SELECT value FROM snapring.version_at('c:a', %s::pg_snapshot)"
        assert await value(db, found, token) == b"0"
        await sweeper.after(99)
        await sweeper.after(100)
        with pytest.raises(psycopg.DatabaseError, match="history reaches back"):
            await value(db, found, token)


async def test_moments_are_few(database: str) -> None:
    """However often a node sweeps, and however long it keeps things."""
    async with installed(database) as db, sweeping(database) as sweeper:
        for _ in range(400):
            await sweeper.after(1)
        counted = "SELECT max(n) FROM (SELECT count(*) AS n FROM snapring.moments GROUP BY kind) AS counted"
        most = await value(db, counted)
        assert isinstance(most, int)
        assert 60 <= most <= 70


async def test_a_failure_is_told_and_nothing_else_suffers(database: str) -> None:
    """The connection is replaced at the next attempt; the breaker stays as it was."""
    async with installed(database) as db, sweeping(database) as sweeper:
        await sweeper.after(0)
        await rows(db, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        await sweeper.after(1)
        retention = sweeper.retention
        assert (retention.failures, retention.holder, sweeper.breaker.closed) == (1, False, True)
        assert "terminating connection" in retention.last_error
        await sweeper.after(1)
        assert (retention.holder, retention.last_error, retention.rounds) == (True, "", 2)


async def test_nobody_sweeps_a_database_that_is_out_of_reach() -> None:
    """While the breaker is open there is no attempt at all."""
    sweeper = Sweeper("postgresql://127.0.0.1:1/nowhere")
    for _ in range(BreakerConfig().failures):
        sweeper.breaker.failed("down")
    await sweeper.after(0)
    assert sweeper.retention.failures == 0


async def test_what_is_known_of_time_survives_a_crash() -> None:
    """The clock, the moments and the floor do; no transaction id in them is ahead of the database."""
    with Server() as fragile, fragile.database() as name:
        async with installed(fragile.dsn(name)) as db, sweeping(fragile.dsn(name)) as sweeper:
            await sweeper.after(0)
            await write(db, 2)
            await sweeper.after(60)
        fragile.crash()
        async with connected(fragile.dsn(name)) as db, sweeping(fragile.dsn(name)) as sweeper:
            assert await value(db, "SELECT count(*) FROM snapring.moments") == 4
            ahead = "SELECT max(oldest::text::int8) - pg_snapshot_xmax(pg_current_snapshot())::text::int8 FROM snapring.moments"
            assert await value(db, ahead) <= 0  # type: ignore[operator]
            await value(db, "SELECT snapring.renew()")
            for elapsed_s in (0, 40):
                await sweeper.after(elapsed_s)
            assert await rows(db, HELD) == [(0, 1)], "the version expired after the first moment"
            await sweeper.after(60)
            assert await rows(db, HELD) == NOTHING


async def test_old_changes_are_deleted_and_new_ones_kept(database: str) -> None:
    """A node's task does it all: the table does not grow for ever, and nothing in memory is voided."""
    brief = RetentionConfig(changes_s=0.2, history_s=0.2, period_s=0.02, batch=20)
    async with captured(database) as writer, running(replace(config(database), retention=brief)) as node:
        await read(node, "user:7")
        voided = node.feed.voided
        for n in range(50):
            await writer.execute(f"UPDATE users SET name = 'v{n}' WHERE id = 8".encode())
        await caught_up(node)
        cursor = await writer.execute("SELECT count(*) FROM snapring.changes")
        (held,) = await cursor.fetchone() or (0,)
        await until(lambda: node.retention.changes >= held)
        assert node.feed.voided == voided
        assert (await read(node, "user:7")).source is Source.LOCAL


async def test_a_stopped_task_lets_go_of_the_lock(database: str) -> None:
    """Whoever comes next need not wait for a session to die."""
    brief = replace(CONFIG, period_s=0.01)
    async with installed(database):
        sweeper = Sweeper(database, brief)
        task = asyncio.create_task(sweeper.retention.run())
        await until(lambda: sweeper.retention.rounds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not sweeper.retention.holder
