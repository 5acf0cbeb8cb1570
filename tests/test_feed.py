"""The feed: no commit is skipped, and where it cannot be sure it voids everything."""

import asyncio
from dataclasses import replace
from time import monotonic

import psycopg
import pytest

from cluster.entries import Batch, Timeline
from cluster.feed import Poll, complete
from cluster.requests import Source
from cluster.snapshots import Snapshot
from nodes import WITHIN_S, captured, caught_up, config, loads, read, running, until, value_of
from servers import Server
from snapring.keys import parse

W = Snapshot(10, 20, (10, 15))


def poll(*, incarnation: int = 1, trimmed: int = 10, catalog: str = "c", overflow: bool = False) -> Poll:
    batch = Batch(incarnation=incarnation, snapshot=Snapshot(30, 30), sent_s=0.0, changes=())
    return Poll(batch=batch, trimmed=trimmed, catalog_version=catalog, overflow=overflow)


@pytest.mark.parametrize(
    ("found", "watermark", "expected"),
    [
        (poll(), W, True),
        (poll(), None, False),
        (poll(incarnation=2), W, False),
        (poll(trimmed=11), W, False),
        (poll(catalog="d"), W, False),
        (poll(overflow=True), W, False),
    ],
    ids=["complete", "no watermark", "incarnation", "trimmed past the watermark", "catalog", "overflow"],
)
def test_a_poll_is_complete_only_without_any_gap(
    found: Poll, watermark: Snapshot | None, expected: bool
) -> None:
    """Each kind of gap alone is reason enough to void everything."""
    assert complete(found, watermark, 1, "c") is expected


async def test_commits_out_of_order_are_all_seen(database: str) -> None:
    """A transaction that began first and commits last still ends the entry."""
    async with (
        captured(database) as late,
        running(config(database)) as node,
        await psycopg.AsyncConnection.connect(database, autocommit=True) as early,
    ):
        await read(node, "user:7")
        async with late.transaction():
            await late.execute("UPDATE users SET name = 'late' WHERE id = 7")
            for n in range(5):
                await early.execute(f"UPDATE users SET name = 'early {n}' WHERE id = 8".encode())
                await caught_up(node)
                assert value_of(await read(node, "user:7"))["name"] == "user 7"  # type: ignore[index]
        await caught_up(node)
        assert value_of(await read(node, "user:7"))["name"] == "late"  # type: ignore[index]


async def test_rolled_back_work_ends_nothing(database: str) -> None:
    """A transaction that was never true, savepoints included, leaves every entry alone."""
    async with captured(database) as writer, running(config(database)) as node:
        await read(node, "user:7")
        async with writer.transaction(force_rollback=True):
            await writer.execute("UPDATE users SET name = 'never' WHERE id = 7")
        async with writer.transaction():
            await writer.execute("UPDATE users SET name = 'other' WHERE id = 8")
            async with writer.transaction(force_rollback=True):
                await writer.execute("UPDATE users SET name = 'never' WHERE id = 7")
        await caught_up(node)
        assert (await read(node, "user:7")).source is Source.LOCAL
        assert loads(node) == 1


async def test_work_in_a_savepoint_counts_with_its_transaction(database: str) -> None:
    """Changes carry the top-level transaction id, whatever subtransaction made them."""
    async with captured(database) as writer, running(config(database)) as node:
        await read(node, "user:7")
        async with writer.transaction(), writer.transaction():
            await writer.execute("UPDATE users SET name = 'inner' WHERE id = 7")
        await caught_up(node)
        assert value_of(await read(node, "user:7"))["name"] == "inner"  # type: ignore[index]


async def test_more_changes_than_the_bound_void_everything(database: str) -> None:
    """Overflow is not an error: the cache is emptied and true."""
    base = config(database)
    async with (
        captured(database) as writer,
        running(replace(base, feed=replace(base.feed, max_changes_per_poll=100))) as node,
    ):
        await read(node, "user:7")
        voided = node.feed.voided
        async with writer.transaction():
            for n in range(101):
                await writer.execute(f"INSERT INTO teams VALUES ({100 + n}, 'many')".encode())
        await caught_up(node)
        assert node.feed.voided == voided + 1
        assert (await read(node, "user:7")).source is Source.LOAD


async def test_changes_trimmed_past_the_watermark_void_everything(database: str) -> None:
    """A node that slept through the retention knows that it missed something."""
    async with captured(database) as writer, running(config(database)) as node:
        await read(node, "user:7")
        await until(lambda: node.feed._connection is not None)
        node.feed._attempt, awake = _asleep, node.feed._attempt  # type: ignore[method-assign]
        await asyncio.sleep(0)
        await writer.execute("UPDATE users SET name = 'missed' WHERE id = 7")
        await writer.execute("SELECT snapring.trim(pg_snapshot_xmax(pg_current_snapshot()), 1000)")
        node.feed._attempt = awake  # type: ignore[method-assign]
        await caught_up(node)
        assert value_of(await read(node, "user:7"))["name"] == "missed"  # type: ignore[index]


async def _asleep() -> float:
    return 0.001


async def test_an_apply_that_fails_halfway_ends_trust(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """I2: after an apply error nothing is vouched for; the process must not go on as if."""
    async with captured(database), running(config(database)) as node:
        await read(node, "user:7")

        def broken(self: Timeline, batch: Batch) -> int:
            raise RuntimeError("a defect")

        monkeypatch.setattr(Timeline, "apply", broken)
        await until(lambda: node.timeline.watermark is None)
        assert node.timeline.watermark_s == float("-inf")


async def test_transaction_ids_above_32_bits_work() -> None:
    """After the 32-bit counter has wrapped, nothing is truncated."""
    with Server() as old:
        old.stop()
        old._run("pg_resetwal", "-e", "3", "-D", str(old.data))
        old.start()
        url = old.dsn()
        async with captured(url) as writer, running(config(url)) as node:
            reply = await read(node, "user:7")
            assert reply.as_of.xmin > 2**32
            async with writer.transaction():
                await writer.execute("UPDATE users SET name = 'new age' WHERE id = 7")
                cursor = await writer.execute("SELECT pg_current_xact_id()::text")
                (xid,) = await cursor.fetchone() or ("0",)
            seen = await node.read(
                parse(b"user:7")[0], node.at_least(node.ticket(int(xid))), monotonic() + WITHIN_S
            )
            assert value_of(seen)["name"] == "new age"  # type: ignore[index]
            assert node.feed.voided == 1
