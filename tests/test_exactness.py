"""A running node never lies: whatever foreign writers do, an answer is true at the snapshot it names.

``SNAPRING_EXACTNESS_SECONDS`` says how long the audits last together (12 by default), ``SNAPRING_EXACTNESS_SEED``
what they draw from.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from time import monotonic
from typing import Final

import pytest

import nodes
import sabotage
import turmoil
from auditor import Auditor, Violation, connect, truth
from cluster import feed, loader
from cluster.config import FeedConfig
from cluster.flight import Flights
from cluster.node import Node
from cluster.postgres import Connection
from cluster.requests import BOUNDED, STRONG, Exactly
from scenes import LIMIT_S, QUICK, SCENES, SEED, SLOW, Scene, audit, cut_off, staged
from servers import Server
from turmoil import prepared

SECONDS: Final = float(os.environ.get("SNAPRING_EXACTNESS_SECONDS", "12"))


@pytest.fixture(scope="module")
def troubled(server: Server) -> Iterator[str]:
    """The URL of a database with the writers' schema, for all tests here."""

    async def prepare(url: str) -> None:
        async with prepared(url):
            pass

    with server.database() as name:
        asyncio.run(prepare(server.dsn(name)))
        yield server.dsn(name)


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
async def test_every_answer_is_true_at_its_snapshot(troubled: str, scene: Scene) -> None:
    """Nothing the node says contradicts Postgres, or itself, or what was acknowledged before."""
    tally = await audit(troubled, scene, seconds=SECONDS / len(SCENES), seed=SEED, least=500)
    print(tally)
    assert tally.exact_share > 0.3
    assert tally.confirmed > 0.05 * tally.replies
    assert bool(tally.stale) == scene.outages


# -- teeth: with any one guard gone, the same audit finds the lie -------------------------------------

FORGETFUL: Final = {
    "synchronous_commit": "off",
    "wal_writer_delay": "10s",
    "wal_writer_flush_after": "100MB",
    "fsync": "on",
}
"""A server that loses what it acknowledged when it crashes."""

Sabotage = Callable[[pytest.MonkeyPatch], None]

TEETH: Final[Mapping[str, tuple[Sabotage, Scene]]] = {
    "admit check": (sabotage.admits_whatever_lands, SLOW),
    "low water": (
        sabotage.forgets_that_the_log_is_short,
        replace(SLOW, feed=FeedConfig(poll_period_s=0.002, log_max_changes=3)),
    ),
    "reaching back": (sabotage.reaches_back_unchecked, QUICK),
    "apply": (sabotage.applies_nothing, QUICK),
    "the time of a poll": (sabotage.dates_polls_when_they_return, QUICK),
    "every change": (sabotage.drops_changes, QUICK),
    "bulk tags": (sabotage.ignores_bulk, QUICK),
    "running transactions": (sabotage.polls_by_xmax_alone, QUICK),
    "overflow": (
        lambda patch: sabotage.believes(patch, overflow=False),
        replace(QUICK, feed=FeedConfig(poll_period_s=0.05, max_changes_per_poll=3)),
    ),
    "trim position": (
        lambda patch: sabotage.believes(patch, trimmed=0),
        replace(
            QUICK, deeds={turmoil.touch: 1, turmoil.trim: 2}, feed=FeedConfig(poll_period_s=0.1), pace_s=0.002
        ),
    ),
    "locks": (
        sabotage.takes_no_lock,
        replace(QUICK, deeds={turmoil.refill: 1}, writers=1, caches=(turmoil.FLUSHED, turmoil.LEFT)),
    ),
    "materialized views": (
        sabotage.trusts_materialized_views,
        replace(
            QUICK,
            deeds={turmoil.refresh: 1, turmoil.sweep: 1},
            writers=1,
            caches=(turmoil.TOTALS,),
            pace_s=0.002,
        ),
    ),
    "flights": (sabotage.takes_any_flight, SLOW),
}


@pytest.mark.parametrize(("remove_guard", "scene"), TEETH.values(), ids=TEETH)
async def test_without_a_guard_the_audit_finds_the_lie(
    troubled: str, monkeypatch: pytest.MonkeyPatch, remove_guard: Sabotage, scene: Scene
) -> None:
    """Every guard is needed, and the audit would notice its loss."""
    remove_guard(monkeypatch)
    await _caught(troubled, scene)


async def test_without_tags_of_old_rows_the_audit_finds_the_lie(database: str) -> None:
    """A row that leaves a group must end what was cached for the group it left."""
    async with prepared(database) as owner:
        found = await owner.execute(b"SELECT pg_get_functiondef('snapring.trigger_source'::regproc)")
        ((source,),) = await found.fetchall()
        assert "{old_rows,new_rows}" in source
        await owner.execute(source.replace("{old_rows,new_rows}", "{new_rows}").encode())
        await turmoil.track(owner)
    await _caught(database, QUICK)


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "unguarded"])
async def test_a_plan_of_another_catalog(
    troubled: str, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    """A load that waited while the view behind its query was replaced is not used under its old plan."""
    if not guarded:
        sabotage.keeps_plans_of_another_catalog(monkeypatch)
    async with (
        staged(troubled, (turmoil.SHOWN,)) as (node, auditor, writer),
        await connect(troubled) as blocker,
    ):
        await writer.execute(b"CREATE OR REPLACE VIEW shown AS SELECT id, value FROM items")
        await nodes.caught_up(node)
        await auditor.ask("shown:1", STRONG)
        async with blocker.transaction():
            await blocker.execute(b"LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
            late = asyncio.create_task(auditor.ask("shown:2", BOUNDED))
            await nodes.blocked(writer)
            await writer.execute(b"CREATE OR REPLACE VIEW shown AS SELECT id, points AS value FROM ranks")
            await nodes.caught_up(node)
        await late
        await writer.execute(b"UPDATE ranks SET points = points + 1 WHERE id = 2")
        await nodes.caught_up(node)
        await _told(guarded, lambda: auditor.check(writer, "shown:2"))


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "unguarded"])
async def test_what_is_stale_is_true_at_the_snapshot_it_names(
    troubled: str, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    """The changes of a poll are applied before the watermark moves, so that what ended names the one before."""
    if not guarded:
        sabotage.moves_the_watermark_first(monkeypatch)
    caches = SCENES["short memory and outages"].caches
    async with staged(troubled, caches) as (node, auditor, writer):
        await writer.execute(b"INSERT INTO items VALUES (1, NULL, 1) ON CONFLICT DO NOTHING")
        await auditor.ask("item:1", STRONG)
        await writer.execute(b"UPDATE items SET value = value + 1 WHERE id = 1")
        await nodes.caught_up(node)
        await auditor.learn(writer, ["item:1"])
        async with cut_off(troubled):

            async def ask() -> None:
                while not auditor.tally.stale:
                    await auditor.ask("item:1", BOUNDED)
                    await asyncio.sleep(0)

            await _told(guarded, ask)


@pytest.mark.parametrize("how", ["short log", "DDL", "too large"])
async def test_what_is_not_kept_claims_no_more_than_its_own_snapshot(
    troubled: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """No change is matched against an entry outside the store: the watermark says nothing about it."""
    scene = replace(
        QUICK,
        memory_bytes=100 if how == "too large" else QUICK.memory_bytes,
        feed=FeedConfig(poll_period_s=0.01, log_max_changes=1 if how == "short log" else 1000),
    )
    async with staged(troubled, scene.caches, scene) as (node, auditor, writer):
        await writer.execute(b"INSERT INTO items VALUES (1, NULL, 1) ON CONFLICT DO NOTHING")
        await auditor.ask("item:2", STRONG)
        arrived, release = _delay(monkeypatch, Flights if how == "too large" else Connection)
        late = asyncio.create_task(auditor.ask("item:1", BOUNDED))
        await arrived.wait()
        for statement in ("UPDATE items SET value = value + 1 WHERE id = 1",) * 2:
            await writer.execute(statement.encode())
        if how == "DDL":
            await writer.execute(b"CREATE OR REPLACE VIEW shown AS SELECT id, value FROM items")
        await nodes.caught_up(node)
        await auditor.learn(writer, ["item:1"])
        release.set()
        reply = await late
        assert reply is not None
        assert await auditor.ask("item:1", Exactly(reply.as_of, reply.incarnation)) in (None, reply)


def _delay(patch: pytest.MonkeyPatch, where: type) -> tuple[asyncio.Event, asyncio.Event]:
    """Hold what loads bring until the second event, once the first says that it is there."""
    arrived, release = asyncio.Event(), asyncio.Event()
    name = "_wait" if where is Flights else "round_trip"
    original = getattr(where, name)

    async def late(*arguments: object) -> object:
        brought = await original(*arguments)
        arrived.set()
        await release.wait()
        return brought

    patch.setattr(where, name, late)
    return arrived, release


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "unguarded"])
async def test_a_crash_that_reuses_transaction_ids(monkeypatch: pytest.MonkeyPatch, guarded: bool) -> None:
    """A snapshot of before the crash is refused; if it were not, the audit would find the lie."""
    if not guarded:
        monkeypatch.setattr(feed, "INCARNATION_MASK", 0)
        monkeypatch.setattr(loader, "INCARNATION_MASK", 0)
    with Server(settings=FORGETFUL) as own:
        async with prepared(own.dsn()):
            pass
        own.restart()
        async with staged(own.dsn(), (turmoil.ITEM,)) as (node, auditor, _):
            lost = await _lost(own, node, auditor)
            async with await connect(own.dsn()) as writer:
                for _ in range(40):
                    await writer.execute(b"UPDATE items SET value = value + 1 WHERE id = 2")
                assert (await truth(writer, node.config.caches, []))[0].snapshot.sees(lost.snapshot.xmax)
            await _told(guarded, lambda: auditor.ask("item:1", lost))
            assert auditor.tally.errors == ({"TOKEN_FOREIGN": 1} if guarded else {})


@pytest.mark.skipif(shutil.which("gdb") is None, reason="needs gdb to stop a backend in the middle of COMMIT")
async def test_a_function_replaced_by_a_commit_that_is_not_over(troubled: str) -> None:
    """Postgres shows a commit to snapshots before it tells sessions to forget the old function."""
    async with (
        staged(troubled, (turmoil.SCALED,)) as (node, auditor, writer),
        await connect(troubled) as slow,
    ):
        await writer.execute(b"INSERT INTO items VALUES (1, NULL, 1) ON CONFLICT DO NOTHING")
        await auditor.ask("scaled:1", STRONG)
        await slow.execute(b"BEGIN")
        await slow.execute(
            b"CREATE OR REPLACE FUNCTION scaled(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 1000'"
        )
        async with _stopped_at("AtEOXact_Inval", slow.info.backend_pid) as stopped:
            commit = asyncio.create_task(slow.execute(b"COMMIT"))
            await stopped()
            await nodes.caught_up(node)
            late = asyncio.create_task(auditor.ask("scaled:1", BOUNDED))
            await asyncio.wait((late,), timeout=0.2)  # a node that waits for the commit is right, too
        await commit
        await late
        await nodes.caught_up(node)
        await auditor.check(writer, "scaled:1")


@asynccontextmanager
async def _stopped_at(function: str, pid: int) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A debugger that stops process ``pid`` in ``function``, until the context is left; a wait for that."""
    debugger = await asyncio.create_subprocess_exec(
        *("gdb", "-nx", "-q", "-batch", "-p", str(pid), "-ex", f"break {function}", "-ex", "echo set\\n",
          "-ex", "continue", "-ex", "echo stopped\\n", "-ex", "shell read line"),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert debugger.stdout is not None

    async def until(said: bytes) -> None:
        assert debugger.stdout is not None
        async with asyncio.timeout(LIMIT_S):
            while (line := await debugger.stdout.readline()) != said:
                assert line, f"gdb ended before it said {said!r}"

    try:
        await until(b"set\n")
        yield lambda: until(b"stopped\n")
    finally:
        await debugger.communicate(b"\n")


async def _lost(own: Server, node: Node, auditor: Auditor) -> Exactly:
    """Crash ``own`` until it has forgotten what it acknowledged; a snapshot at which the node answered that."""
    while True:
        async with await connect(own.dsn()) as writer:
            for _ in range(20):
                await writer.execute(b"UPDATE items SET value = value + 1 WHERE id = 1")
            position, before = await truth(writer, node.config.caches, ["item:1"])
            assert await auditor.ask("item:1", position)
            voided = node.feed.voided
            own.crash()
        await nodes.until(lambda before=voided: node.feed.voided > before and node.breaker.closed)  # type: ignore[misc]
        async with await connect(own.dsn()) as witness:
            if (await truth(witness, node.config.caches, ["item:1"]))[1] != before:
                return position


async def _told(guarded: bool, check: Callable[[], Awaitable[object]]) -> None:
    """Without the guard the check finds a violation, with it none."""
    if guarded:
        await check()
        return
    with pytest.raises(Violation):
        await check()


async def _caught(url: str, scene: Scene) -> None:
    started_s = monotonic()
    with pytest.raises(Violation) as found:
        print(await audit(url, scene, seconds=LIMIT_S, seed=SEED))
    print(f"caught after {monotonic() - started_s:.1f} s: {str(found.value).splitlines()[1][:300]}")
