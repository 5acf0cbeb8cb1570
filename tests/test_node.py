"""The read path on a real PostgreSQL: what each consistency gets, and how bad input ends."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from math import inf
from time import monotonic

import psycopg
import pytest

from cluster.config import CacheConfig
from cluster.node import Node
from cluster.requests import STRONG, AtLeast, Exactly, Reply, Source, State
from cluster.snapshots import Snapshot
from cluster.tokens import Ticket
from nodes import CACHES, blocked, captured, caught_up, config, loads, read, running, until, value_of
from snapring.errors import (
    ArgumentInvalid,
    CacheRefused,
    CacheUnknown,
    DeadlineExceeded,
    NodeStopping,
    Overloaded,
    QueryFailed,
    QueryTimeout,
    SnapshotUnavailable,
    TokenAhead,
    TokenForeign,
    TooManyRows,
)
from snapring.keys import parse


@dataclass(frozen=True, slots=True)
class Setup:
    """A node, and a foreign writer on its database."""

    node: Node
    writer: psycopg.AsyncConnection

    async def write(self, sql: str) -> int:
        """Run one statement in a transaction of its own; its xid."""
        async with self.writer.transaction():
            await self.writer.execute(sql.encode())
            cursor = await self.writer.execute("SELECT pg_current_xact_id()::text")
            (xid,) = await cursor.fetchone() or ("0",)
        return int(xid)

    def at_least(self, xid: int) -> AtLeast:
        """Must see transaction ``xid``."""
        return self.node.at_least(self.node.ticket(xid))


@pytest.fixture
async def setup(database: str) -> AsyncIterator[Setup]:
    """Users and teams under capture, four caches over them."""
    async with captured(database) as writer, running(config(database)) as node:
        yield Setup(node, writer)


async def test_a_miss_loads_and_a_hit_does_not(setup: Setup) -> None:
    """The second read comes from memory and says so."""
    first, second = await read(setup.node, "user:7"), await read(setup.node, "user:7")
    assert value_of(first) == value_of(second) == {"id": 7, "name": "user 7", "team_id": 2}
    assert (first.source, second.source) == (Source.LOAD, Source.LOCAL)
    assert loads(setup.node) == 1


async def test_a_commit_ends_exactly_the_entries_it_touched(setup: Setup) -> None:
    """A neighbour's row stays a hit; the changed row is loaded anew, in every cache that shows it."""
    for key in ("user:7", "user:8", "members:2", "members:3", "headcount"):
        await read(setup.node, key)
    before = loads(setup.node)
    xid = await setup.write("UPDATE users SET name = 'changed' WHERE id = 7")
    seen = setup.at_least(xid)
    assert value_of(await read(setup.node, "user:7", seen)) == {"id": 7, "name": "changed", "team_id": 2}
    assert {"id": 7, "name": "changed"} in value_of(await read(setup.node, "members:2", seen))  # type: ignore[operator]
    await read(setup.node, "user:8", seen)
    await read(setup.node, "members:3", seen)
    assert loads(setup.node) == before + 2


async def test_a_row_that_moves_between_groups_leaves_one_and_enters_the_other(setup: Setup) -> None:
    """Old and new values of a key column both count."""
    await read(setup.node, "members:1")
    await read(setup.node, "members:2")
    seen = setup.at_least(await setup.write("UPDATE users SET team_id = 2 WHERE id = 3"))
    assert 3 not in [row["id"] for row in value_of(await read(setup.node, "members:1", seen))]  # type: ignore[attr-defined]
    assert 3 in [row["id"] for row in value_of(await read(setup.node, "members:2", seen))]  # type: ignore[attr-defined]


async def test_no_row_is_an_answer_and_is_cached_until_there_is_one(setup: Setup) -> None:
    """A cached absence is a hit, and ends with the insert that makes it untrue."""
    assert (await read(setup.node, "user:99")).value is None
    assert (await read(setup.node, "user:99")).source is Source.LOCAL
    seen = setup.at_least(await setup.write("INSERT INTO users VALUES (99, 'new', 1)"))
    assert value_of(await read(setup.node, "user:99", seen)) == {"id": 99, "name": "new", "team_id": 1}


async def test_a_key_of_another_tenant_is_another_entry(setup: Setup) -> None:
    """The tenant is part of the identity."""
    await read(setup.node, "user:7")
    assert (await read(setup.node, "acme/user:7")).source is Source.LOAD


async def test_strong_sees_what_was_committed_before_it_was_asked(setup: Setup) -> None:
    """Without any token, a strong read after a commit shows the commit."""
    await read(setup.node, "user:7")
    for n in range(20):
        await setup.write(f"UPDATE users SET name = 'v{n}' WHERE id = 7")
        assert value_of(await read(setup.node, "user:7", STRONG))["name"] == f"v{n}"  # type: ignore[index]


async def test_strong_on_an_untouched_entry_polls_instead_of_loading(setup: Setup) -> None:
    """The feed vouches for it; Postgres need not run the query again."""
    await read(setup.node, "user:7")
    reply = await read(setup.node, "user:7", STRONG)
    assert (reply.source, loads(setup.node)) == (Source.LOCAL, 1)


async def test_an_exact_read_answers_as_of_the_token(setup: Setup) -> None:
    """The old value is true at the old token as long as it is held; the new one is not."""
    old = await read(setup.node, "user:7")
    token = setup.node.token(old.as_of, old.incarnation)
    await setup.write("UPDATE users SET name = 'changed' WHERE id = 7")
    await caught_up(setup.node)
    reply = await read(setup.node, "user:7", setup.node.exactly(token))
    assert value_of(reply) == value_of(old)
    assert reply.as_of == old.as_of
    await read(setup.node, "user:7")
    with pytest.raises(SnapshotUnavailable):
        await read(setup.node, "user:7", setup.node.exactly(token))


async def test_an_exact_read_of_a_cold_key_answers_if_nothing_changed_since(setup: Setup) -> None:
    """A load reaches back to the token over changes that did not touch it."""
    snapshot, incarnation = await setup.node.snapshot(monotonic() + 5, strong=True)
    await setup.write("UPDATE users SET name = 'changed' WHERE id = 8")
    await caught_up(setup.node)
    exactly = Exactly(snapshot, incarnation)
    assert (await read(setup.node, "user:7", exactly)).as_of == snapshot
    with pytest.raises(SnapshotUnavailable):
        await read(setup.node, "user:8", exactly)


async def test_a_token_from_the_future_is_refused_in_time(database: str) -> None:
    """Waiting for what may never come is bounded."""
    async with captured(database), running(config(database, token_wait_s=0.05)) as node:
        assert node.timeline.incarnation is not None
        with pytest.raises(TokenAhead):
            await read(node, "user:7", AtLeast(Ticket(2**40), node.timeline.incarnation))
        with pytest.raises(TokenAhead):
            await read(node, "user:7", AtLeast(Snapshot(2**40, 2**40), node.timeline.incarnation))


async def test_a_ticket_of_a_running_transaction_waits_for_its_end(setup: Setup) -> None:
    """The reply comes when the transaction has committed, and shows it."""
    await read(setup.node, "user:7")
    async with setup.writer.transaction():
        cursor = await setup.writer.execute(
            "UPDATE users SET name = 'late' WHERE id = 7 RETURNING pg_current_xact_id()::text"
        )
        (xid,) = await cursor.fetchone() or ("0",)
        waiting = asyncio.create_task(read(setup.node, "user:7", setup.at_least(int(xid))))
        await until(lambda: setup.node.feed._waiters)
    assert value_of(await waiting)["name"] == "late"  # type: ignore[index]


async def test_a_foreign_token_is_refused(setup: Setup) -> None:
    """Numbers of another incarnation mean nothing here, even if they compare."""
    assert setup.node.timeline.incarnation is not None
    with pytest.raises(TokenForeign):
        await read(setup.node, "user:7", AtLeast(Ticket(1), setup.node.timeline.incarnation ^ 1))


@pytest.mark.parametrize(
    ("key", "error", "says"),
    [
        ("nonsuch:1", CacheUnknown, "configured: headcount, members"),
        ("user", ArgumentInvalid, "takes 1 argument"),
        ("user:1:2", ArgumentInvalid, "takes 1 argument"),
        ("user:abc", ArgumentInvalid, "abc"),
        ("user:99999999999999999999", ArgumentInvalid, "out of range"),
    ],
)
async def test_bad_input_is_a_typed_error(setup: Setup, key: str, error: type[Exception], says: str) -> None:
    """Each names what is wrong, cold and warm, and the breaker does not count it."""
    for _ in range(2):
        with pytest.raises(error, match=says):
            await read(setup.node, key)
    assert setup.node.breaker.closed


async def test_one_bad_argument_in_a_batch_fails_alone(setup: Setup) -> None:
    """Misses that travel together do not share their errors."""
    keys = ["user:1", "user:zzz", "user:2", "user:-", "user:3"]
    replies = await asyncio.gather(*(read(setup.node, key) for key in keys), return_exceptions=True)
    assert [isinstance(reply, Reply) for reply in replies] == [True, False, True, False, True]
    assert all(isinstance(reply, ArgumentInvalid) for reply in replies[1::2])


async def test_a_thousand_callers_of_one_cold_key_cause_one_load(setup: Setup) -> None:
    """No stampede."""
    replies = await asyncio.gather(*(read(setup.node, "user:5") for _ in range(1000)))
    assert {value_of(reply)["name"] for reply in replies} == {"user 5"}  # type: ignore[index]
    assert loads(setup.node) == 1


async def test_more_rows_than_allowed_is_an_error(database: str) -> None:
    """The bound holds for lists, and `single` allows one."""
    caches = (
        CacheConfig(name="few", sql="SELECT id FROM users ORDER BY id -- all of them", max_rows=10),
        CacheConfig(name="one", sql="SELECT id FROM users;", single=True),
        CacheConfig(name="limited", sql="SELECT id FROM users ORDER BY id LIMIT 20", max_rows=10),
    )
    async with captured(database), running(config(database, caches)) as node:
        for key in ("few", "one", "limited"):
            with pytest.raises(TooManyRows):
                await read(node, key)


async def test_a_value_too_large_to_keep_is_answered_and_counted(database: str) -> None:
    """The answer is right, memory stays within its bound."""
    caches = (CacheConfig(name="big", sql="SELECT repeat('x', 3000000) AS x FROM teams WHERE id = $1"),)
    async with captured(database), running(config(database, caches, memory_bytes=2**20)) as node:
        for _ in range(2):
            assert len((await read(node, "big:1")).value or b"") > 3_000_000
        assert node.store.bytes == 0
        assert node.store.removed["too_large"] == 2


async def test_a_slow_query_is_cancelled_and_the_others_are_not(database: str) -> None:
    """The statement timeout ends one query with a typed error; the connection serves on."""
    slow = "SELECT count(*) AS n FROM users a, users b, users c, users d, users e, users f WHERE a.id <> $1"
    caches = (*CACHES, CacheConfig(name="slow", sql=slow))
    base = config(database, caches)
    async with (
        captured(database),
        running(replace(base, postgres=replace(base.postgres, statement_timeout_s=0.1))) as node,
    ):
        with pytest.raises(QueryTimeout):
            await read(node, "slow:1")
        assert value_of(await read(node, "user:1")) is not None
        assert node.breaker.closed


async def test_a_full_queue_refuses_with_a_retry_hint(database: str) -> None:
    """What does not fit in the queue is told when to come back; what fits is served."""
    base = config(database)
    async with captured(database), running(replace(base, load=replace(base.load, queue=10))) as node:
        replies = await asyncio.gather(
            *(read(node, f"user:{n}") for n in range(1, 31)), return_exceptions=True
        )
    refused = [reply for reply in replies if isinstance(reply, Overloaded)]
    assert len(refused) == 20
    assert all(reply.retry_after_s > 0 for reply in refused)
    assert sum(isinstance(reply, Reply) for reply in replies) == 10


async def test_a_request_deadline_ends_the_wait_not_the_load(setup: Setup) -> None:
    """The caller leaves with DEADLINE_EXCEEDED; the load still fills memory."""
    with pytest.raises(DeadlineExceeded):
        await setup.node.read(parse(b"user:9")[0], STRONG, monotonic())
    assert (await read(setup.node, "user:9")).state is State.FRESH
    assert loads(setup.node) == 1


async def test_stopping_answers_those_in_flight_with_an_error(database: str) -> None:
    """Nobody is left in silence when a node stops in the middle of loads."""
    lock = "BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE"
    async with captured(database) as writer:
        async with running(config(database)) as node:
            await read(node, "user:30")
            await writer.execute(lock.encode())
            waiting = [asyncio.create_task(read(node, f"user:{n}")) for n in range(1, 20)]
            await until(lambda: node.loader.batches > 1)
        replies = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(reply, NodeStopping) for reply in replies)
        with pytest.raises(NodeStopping):
            await read(node, "user:1")
        await writer.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("UPDATE users SET name = 'x' WHERE id = $1 RETURNING id", "SELECT"),
        ("SELECT now() AS t FROM users WHERE id = $1", "now"),
        ("SELECT random() AS r FROM users WHERE id = $1", "random"),
        ("SELECT * FROM untracked WHERE id = $1", "snapring track"),
    ],
)
async def test_sql_that_cannot_be_exact_is_refused_with_the_reason(
    database: str, sql: str, says: str
) -> None:
    """The refusal names the cache and the cause; other caches serve."""
    caches = (*CACHES, CacheConfig(name="bad", sql=sql))
    async with captured(database) as writer:
        await writer.execute("CREATE TABLE untracked (id int PRIMARY KEY)")
        async with running(config(database, caches)) as node:
            with pytest.raises(CacheRefused, match=says) as refusal:
                await read(node, "bad:1")
            assert "bad" in str(refusal.value)
            assert (await read(node, "user:1")).state is State.FRESH


async def test_a_table_dropped_while_running_ends_its_entries(setup: Setup) -> None:
    """The answer from memory goes with the table; other caches recover by themselves."""
    await read(setup.node, "user:7")
    await setup.writer.execute("DROP TABLE users")
    await caught_up(setup.node)
    with pytest.raises((CacheRefused, QueryFailed)):
        await read(setup.node, "user:7")
    assert setup.node.breaker.closed


async def test_a_column_added_while_running_shows_up(database: str) -> None:
    """ALTER TABLE voids what was loaded before it, prepared statements included."""
    caches = (CacheConfig(name="star", sql="SELECT * FROM users WHERE id = $1", single=True),)
    async with captured(database) as writer, running(config(database, caches)) as node:
        await asyncio.gather(*(read(node, f"star:{n}") for n in range(1, 9)))
        await writer.execute("ALTER TABLE users ADD COLUMN mail text DEFAULT 'none'")
        await caught_up(node)
        replies = await asyncio.gather(*(read(node, f"star:{n}") for n in range(1, 9)))
        assert all(value_of(reply)["mail"] == "none" for reply in replies)  # type: ignore[index]


async def test_a_table_taken_off_capture_is_no_longer_served(setup: Setup) -> None:
    """Without triggers nothing could be exact, so nothing is claimed; tracking again heals it."""
    from cluster import capture  # noqa: PLC0415

    await read(setup.node, "user:7")
    await capture.untrack(setup.writer, "users")
    await caught_up(setup.node)
    with pytest.raises(CacheRefused, match="track"):
        await read(setup.node, "user:7")
    await capture.track(setup.writer, "users")
    await caught_up(setup.node)
    assert (await read(setup.node, "user:7")).state is State.FRESH


async def test_a_connection_that_lost_what_it_had_prepared_is_replaced(setup: Setup) -> None:
    """A pooler may deallocate everything, and psycopg does after some rollbacks of its own."""
    await read(setup.node, "user:7")
    for connection in setup.node.loader._connections._idle:
        await connection.execute("DEALLOCATE ALL")
    assert value_of(await read(setup.node, "user:8")) is not None
    assert value_of(await read(setup.node, "members:1")) is not None


async def test_a_disabled_trigger_is_noticed(setup: Setup) -> None:
    """ALTER TABLE … DISABLE TRIGGER would make writes invisible: the cache refuses instead."""
    await read(setup.node, "user:7")
    await setup.writer.execute("ALTER TABLE users DISABLE TRIGGER ALL")
    await caught_up(setup.node)
    with pytest.raises(CacheRefused):
        await read(setup.node, "user:7")
    await setup.writer.execute("UPDATE users SET name = 'unseen' WHERE id = 7")


async def test_ttl_ends_an_entry_that_nothing_touched(database: str) -> None:
    """With a ttl the entry is loaded again after it, jitter included."""
    now = [monotonic()]
    caches = (replace(CACHES[0], ttl_s=60.0, ttl_jitter=0.5),)
    async with captured(database):
        node = Node(config(database, caches), clock=lambda: now[0])
        entries = [node._landing._until_s(caches[0], 100.0) for _ in range(200)]
    assert all(130.0 <= until_s <= 160.0 for until_s in entries)
    assert max(entries) - min(entries) > 10.0


async def test_a_truncate_between_snapshot_and_query_is_not_seen_through_it(setup: Setup) -> None:
    """TRUNCATE ignores snapshots; the load's lock keeps it from showing in an older one."""
    await read(setup.node, "headcount")
    plan = setup.node.plans.known("headcount")
    assert plan is not None
    assert plan.lock is not None
    connection = await setup.node.loader._connections.take()
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    await connection.execute(plan.lock)
    await connection.execute("SELECT pg_current_snapshot()")
    truncating = asyncio.create_task(setup.writer.execute("TRUNCATE users"))
    async with await psycopg.AsyncConnection.connect(
        setup.node.config.postgres.url, autocommit=True
    ) as witness:
        await blocked(witness)
    cursor = await connection.execute(plan.sql)
    assert await cursor.fetchone() == (30,)
    await connection.execute("COMMIT")
    await truncating
    await connection.close()
    assert value_of(await read(setup.node, "headcount", STRONG)) == {"n": 0}


async def test_a_materialized_view_is_followed_through_its_refresh(database: str) -> None:
    """Its rows change when it is refreshed, and only then."""
    caches = (CacheConfig(name="sizes", sql="SELECT n FROM sizes WHERE team_id = $1", single=True),)
    async with captured(database) as writer:
        await writer.execute(
            "CREATE MATERIALIZED VIEW sizes AS SELECT team_id, count(*) AS n FROM users GROUP BY team_id"
        )
        async with running(config(database, caches)) as node:
            assert value_of(await read(node, "sizes:1")) == {"n": 10}
            await writer.execute("DELETE FROM users WHERE id = 3")
            await caught_up(node)
            assert (await read(node, "sizes:1")).source is Source.LOCAL
            await writer.execute("REFRESH MATERIALIZED VIEW sizes")
            await caught_up(node)
            assert value_of(await read(node, "sizes:1")) == {"n": 9}


async def test_a_changed_search_path_does_not_change_what_a_running_node_reads(database: str) -> None:
    """ALTER DATABASE is no DDL that anybody here sees; new connections keep what the first one had."""
    async with captured(database) as writer, running(config(database)) as node:
        await read(node, "user:1")
        await writer.execute("CREATE SCHEMA other")
        await writer.execute("CREATE TABLE other.users (id int, name text, team_id int)")
        name = writer.info.dbname
        await writer.execute(f"ALTER DATABASE {name} SET search_path = other".encode())
        await node.loader._connections.close()
        assert value_of(await read(node, "user:2", STRONG))["name"] == "user 2"  # type: ignore[index]
        assert node.loader._connections.opened > 1


@pytest.mark.parametrize(
    ("sql", "key"),
    [
        ("SELECT date_trunc($2, made) AS m FROM matters WHERE id = $1", "odd:1:timezone"),
        ("SELECT id FROM unfilled WHERE id = $1", "odd:1"),
    ],
    ids=["a feature not supported", "a materialized view without data"],
)
async def test_an_error_of_one_query_is_no_outage(database: str, sql: str, key: str) -> None:
    """However odd its SQLSTATE, it fails its own callers, with a typed error, and nobody else."""
    schema = """
        CREATE TABLE matters (id int PRIMARY KEY, made timestamp); INSERT INTO matters VALUES (1, '2026-01-01');
        CREATE TABLE users (id int PRIMARY KEY, name text, team_id int); INSERT INTO users VALUES (1, 'user 1', 1)
    """
    caches = (CACHES[0], CacheConfig(name="odd", sql=sql))
    async with captured(database, schema) as writer:
        await writer.execute("CREATE MATERIALIZED VIEW unfilled AS SELECT id FROM matters WITH NO DATA")
        async with running(config(database, caches)) as node:
            for _ in range(10):
                with pytest.raises((QueryFailed, ArgumentInvalid)):
                    await read(node, key)
                assert value_of(await read(node, "user:1", STRONG)) is not None
            assert node.breaker.closed


async def test_a_hit_needs_an_open_entry_and_a_watermark_that_is_new_enough(database: str) -> None:
    """What has ended, has expired or is not known to be fresh takes the long way."""
    async with captured(database) as writer, running(config(database)) as node:
        await read(node, "user:7")
        await caught_up(node)
        entry = node.hit(b"user:7")
        assert entry is not None
        assert (entry.frequency, node.hits, node.hit(b"user:8")) == (1, 1, None)
        node.fresh_until_s, kept = -inf, node.fresh_until_s
        assert node.hit(b"user:7") is None
        node.fresh_until_s = kept
        await writer.execute("UPDATE users SET name = 'new' WHERE id = 7")
        await caught_up(node)
        assert node.hit(b"user:7") is None
