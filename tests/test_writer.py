"""The writer on a real database: what it says of a write is so, whatever happens on the way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from types import SimpleNamespace
from typing import cast

import psycopg
import pytest
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from cluster import capture
from cluster.breaker import Breaker
from cluster.config import BreakerConfig, PostgresConfig, WriteConfig
from cluster.postgres import Connections, Sessions
from cluster.write_statement import outcome
from cluster.writer import Writer, session
from cluster.writes import Deed, Refused, Written
from nodes import WITHIN_S, until
from servers import Server
from snapring.errors import (
    DeadlineExceeded,
    NodeStopping,
    Overloaded,
    QueryFailed,
    SnapringError,
    Unavailable,
    VersionMismatch,
    WriteUncertain,
)
from snapring.keys import parse

Database = psycopg.AsyncConnection
WAITING = "FROM pg_stat_activity WHERE application_name = 'snapring writer' AND wait_event_type = 'Lock'"
AT_COMMIT = """
CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT OR UPDATE ON snapring.heads
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.key = 'settings:odd') EXECUTE FUNCTION at_commit();
"""

IN_THE_MAKING = """
CREATE FUNCTION waits() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
CREATE TRIGGER waits AFTER INSERT OR UPDATE ON snapring.heads
  FOR EACH ROW WHEN (NEW.key = 'settings:odd') EXECUTE FUNCTION waits();
"""


@asynccontextmanager
async def writing(
    url: str, *, statement_timeout_s: float = WITHIN_S, **settings: float
) -> AsyncIterator[tuple[Writer, Database]]:
    """A writer before a database that is ready for it, and a superuser's connection."""
    async with await Database.connect(url, autocommit=True) as database:
        await capture.install(database)
        await database.execute("SELECT snapring.renew()")
        writer = writer_for(url, statement_timeout_s=statement_timeout_s, **settings)
        try:
            yield writer, database
        finally:
            await writer.stop()


def writer_for(url: str, *, statement_timeout_s: float = WITHIN_S, **settings: float) -> Writer:
    """A writer with one connection, unless ``settings`` say otherwise."""
    postgres = PostgresConfig(url=url, statement_timeout_s=statement_timeout_s)
    config = WriteConfig(**{"connections": 1, "timeout_s": WITHIN_S, **settings})  # type: ignore[arg-type]
    return Writer(
        config=config,
        connections=Connections(Sessions(postgres), "snapring writer", session(config)),
        breaker=Breaker(BreakerConfig(failures=2)),
        clock=monotonic,
    )


def put(
    writer: Writer,
    *keys: str,
    value: bytes | None = b"v",
    if_version: int | None = None,
    within_s: float = WITHIN_S,
) -> asyncio.Task[Written]:
    """One write of ``value`` under all ``keys``, begun."""
    deeds = [
        Deed(key=parse(f"settings:{key}".encode())[0], value=value, if_version=if_version) for key in keys
    ]
    return asyncio.create_task(writer.write(deeds, monotonic() + within_s))


async def outcomes(*writes: asyncio.Task[Written]) -> list[object]:
    """What became of each: `Written`, or the kind of error."""
    async with asyncio.timeout(WITHIN_S):
        ended = await asyncio.gather(*writes, return_exceptions=True)
    return [Written if isinstance(each, Written) else type(each) for each in ended]


async def stored(database: Database) -> dict[str, bytes]:
    """What the database holds, by the last part of the key."""
    cursor = await database.execute("SELECT key, value FROM snapring.heads")
    return {key.removeprefix("settings:"): value for key, value in await cursor.fetchall()}


@asynccontextmanager
async def locked(url: str, key: str) -> AsyncIterator[None]:
    """Another transaction has written ``key`` and not ended; in the end it is rolled back."""
    async with await Database.connect(url) as other:
        await other.execute(
            "SELECT snapring.write(ARRAY[%s], ARRAY['x'::bytea], ARRAY[NULL]::bigint[])", (f"settings:{key}",)
        )
        yield
        with suppress(psycopg.OperationalError):  # the server may be gone
            await other.rollback()


@asynccontextmanager
async def stuck(url: str) -> AsyncIterator[None]:
    """A write of the key ``odd`` does not get done, once it has been sent, before the end."""
    async with await Database.connect(url, autocommit=True) as other:
        await other.execute("SELECT pg_advisory_lock(1)")
        await other.execute(IN_THE_MAKING.encode())
        yield
        with suppress(psycopg.OperationalError):  # the server may be gone
            await other.execute("SELECT pg_advisory_unlock(1)")


async def no_writer_is_left(database: Database) -> None:
    """Return when the server has ended every connection that wrote."""
    left = f"SELECT count(*) {WAITING}".split(" AND ", maxsplit=1)[0]
    async with asyncio.timeout(WITHIN_S):
        while await (await database.execute(left.encode())).fetchone() != (0,):
            pass


async def writer_waits(database: Database) -> None:
    """Return when the server executes a write that waits for a lock."""

    async def waits() -> bool:
        cursor = await database.execute(f"SELECT count(*) {WAITING}".encode())
        return await cursor.fetchone() == (1,)

    async with asyncio.timeout(WITHIN_S):
        while not await waits():
            pass


async def test_a_write_is_stored_as_it_is(database: str) -> None:
    """Any byte and any key; a delete is one too, and says how many keys there were."""
    values = [b"", b"\x00\xff\\\"'{},NULL", bytes(range(256)) * 100]
    async with writing(database) as (writer, db):
        written = [await put(writer, 'a"\\,{}'.replace("{}", "%7B"), value=value) for value in values]
        assert [each.existed for each in written] == [0, 1, 1]
        assert await stored(db) == {'a"\\,%7B': values[-1]}
        cursor = await db.execute(
            "SELECT created::text::bigint, version, snapring.incarnation() FROM snapring.heads"
        )
        ((xid, version, incarnation),) = await cursor.fetchall()
        assert written[-1] == Written(xid=xid, version=version, incarnation=incarnation % 2**64, existed=1)
        assert (await put(writer, 'a"\\,%7B', "none", value=None)).existed == 1
        assert await stored(db) == {}


async def test_what_waits_together_goes_together(database: str) -> None:
    """Each write is a transaction of its own, and they share a few round trips."""
    async with writing(database, connections=2) as (writer, db):
        written = await asyncio.gather(*(put(writer, f"k{n}") for n in range(200)))
        assert len({each.xid for each in written}) == 200
        assert len(await stored(db)) == writer.written == 200
        assert writer.batches < 40


async def test_one_writers_refusal_touches_no_other(database: str) -> None:
    """A mismatch in the middle of a round trip is its own caller's."""
    async with writing(database) as (writer, db):
        writes = [
            put(writer, "a"),
            put(writer, "b", if_version=7),
            put(writer, "a", value=b"2"),
            put(writer, "c"),
        ]
        assert await outcomes(*writes) == [Written, Refused, Written, Written]
        assert await stored(db) == {"a": b"2", "c": b"v"}
        assert (writer.batches, writer.mismatched, writer.failures) == (1, 1, 0)


async def test_several_keys_are_written_all_or_none(database: str) -> None:
    """One key that is not as demanded, and nothing is done."""
    async with writing(database) as (writer, db):
        await put(writer, "b")
        with pytest.raises(VersionMismatch, match="settings:b"):
            await put(writer, "a", "b", "c", if_version=0)
        assert await stored(db) == {"b": b"v"}


async def test_of_writers_that_race_for_a_version_one_wins(database: str) -> None:
    """Two nodes, ten callers each, again and again."""
    async with writing(database, connections=2) as (one, _):
        two = writer_for(database, connections=2)
        version = 0
        for _ in range(10):
            writes = [
                put(each, "a", "b", value=b"%d" % n, if_version=version)
                for n in range(10)
                for each in (one, two)
            ]
            ended = await asyncio.gather(*writes, return_exceptions=True)
            (won,) = [each for each in ended if isinstance(each, Written)]
            lost = [each for each in ended if isinstance(each, VersionMismatch)]
            assert {each.version for each in lost} == {won.version}
            assert len(lost) == 19
            version = won.version
        await two.stop()


async def test_each_write_is_answered_as_soon_as_it_is_committed(database: str) -> None:
    """One that is long in the making holds up those behind it in its round trip, not those before."""
    async with writing(database) as (writer, db):
        async with stuck(database):
            first, second, third = put(writer, "a"), put(writer, "odd"), put(writer, "b")
            assert await outcomes(first) == [Written]
            await writer_waits(db)
            assert await stored(db) == {"a": b"v"}
            assert not second.done()
            assert not third.done()
        assert await outcomes(second, third) == [Written, Written]


async def test_a_locked_key_holds_up_no_other_key(database: str) -> None:
    """What came with it in one round trip is written at once, and so is what comes later."""
    async with writing(database) as (writer, db):
        async with locked(database, "odd"), locked(database, "even"):
            keys = [(f"k{n}", "odd", "even") for n in range(40)]
            writes = [[put(writer, key, value=b"%d" % n) for key in each] for n, each in enumerate(keys)]
            others, *blocked = zip(*writes, strict=True)
            assert await outcomes(*others) == [Written] * 40
            await until(lambda: writer.blocked == 80)
            assert await outcomes(*(put(writer, f"m{n}") for n in range(40))) == [Written] * 40
        assert await outcomes(*blocked[0], *blocked[1]) == [Written] * 80
        assert {(await stored(db))[key] for key in ("odd", "even")} == {b"39"}
        assert not writer._turns._held


async def test_a_locked_key_is_not_all_that_a_queue_may_hold(database: str) -> None:
    """Half of it at most waits for one key; others may still come."""
    async with writing(database, queue=10) as (writer, _), locked(database, "odd"):
        waiting = [put(writer, "odd") for _ in range(7)]
        await until(lambda: writer.blocked == 7)
        with pytest.raises(Overloaded, match="6 of them for one of the keys"):
            await put(writer, "a", "odd")
        assert await outcomes(put(writer, "a")) == [Written]
        await writer.stop()
        assert await outcomes(*waiting) == [NodeStopping] * 7


async def test_a_write_that_leaves_lets_those_behind_it_go(database: str) -> None:
    """One was tried again and again for all that wait for its key, until its deadline; then another is."""
    async with writing(database) as (writer, db):
        async with locked(database, "odd"):
            first, second, third = (put(writer, "odd", within_s=within_s) for within_s in (0.3, 9.0, 9.0))
            await until(lambda: writer.blocked == 3)
            assert await outcomes(first) == [DeadlineExceeded]
            second.cancel()
        assert await outcomes(third) == [Written]
        assert set(await stored(db)) == {"odd"}


async def test_a_write_that_waits_for_too_long_is_certainly_not_written(database: str) -> None:
    """However many keys it waited for, and however often it was tried."""
    async with writing(database) as (writer, db):
        async with locked(database, "odd"), locked(database, "even"):
            writes = [put(writer, "odd", "even", within_s=1.0), put(writer, "odd", within_s=1.0)]
            assert await outcomes(*writes) == [DeadlineExceeded] * 2
            assert "another transaction kept writing settings:" in str(writes[0].exception())
        assert await stored(db) == {}


async def test_nothing_of_a_round_trip_that_was_given_up_is_written_later(database: str) -> None:
    """The first is stuck at its commit: the server notices that nobody listens, and does not begin the others."""
    async with writing(database, timeout_s=0.5) as (writer, db):
        async with stuck(database):
            writes = [put(writer, "odd"), *(put(writer, f"k{n}") for n in range(20))]
            assert await outcomes(*writes) == [WriteUncertain] * 21
            await no_writer_is_left(db)
        assert await stored(db) == {}


async def test_a_backend_that_is_ended_while_it_waits_has_certainly_not_written(database: str) -> None:
    """The server says so itself; what it had committed before is told as committed."""
    async with writing(database) as (writer, db):
        async with stuck(database):
            writes = [put(writer, "a"), put(writer, "odd"), put(writer, "b")]
            await writer_waits(db)
            await db.execute(f"SELECT pg_terminate_backend(pid) {WAITING}".encode())
            assert await outcomes(*writes) == [Written, Unavailable, Unavailable]
        assert await outcomes(put(writer, "c")) == [Written]
        assert set(await stored(db)) == {"a", "c"}


@pytest.mark.parametrize(
    ("at_commit", "error"),
    [
        ("RAISE 'no';", QueryFailed),
        ("PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(9);", WriteUncertain),
    ],
    ids=["refused", "ended"],
)
async def test_the_answer_to_a_statement_is_not_yet_a_commit(
    database: str, at_commit: str, error: type[SnapringError]
) -> None:
    """What fails after the statement's own result, at COMMIT, is never OK."""
    async with writing(database) as (writer, db):
        await db.execute(AT_COMMIT.format(at_commit).encode())
        assert await outcomes(put(writer, "a"), put(writer, "odd")) == [Written, error]
        assert await stored(db) == {"a": b"v"}
        assert await outcomes(put(writer, "b")) == [Written]


def test_an_answer_without_its_end_is_none() -> None:
    """The connection was lost between the statement's result and the word that it is committed."""
    result = cast("PGresult", SimpleNamespace(status=ExecStatus.TUPLES_OK))
    for results in ([], [result]):
        assert isinstance(outcome(results, ended=False), WriteUncertain)


async def test_a_server_that_dies_says_nothing_or_no() -> None:
    """Killed while a write waits: it is never told as written."""
    with Server() as server:
        async with writing(server.dsn()) as (writer, db), stuck(server.dsn()):
            assert await outcomes(put(writer, "a")) == [Written]
            writes = [put(writer, "odd"), put(writer, "b")]
            await writer_waits(db)
            server.kill9()
            assert set(await outcomes(*writes)) <= {WriteUncertain, Unavailable}
        server.start()
        async with await Database.connect(server.dsn(), autocommit=True) as after:
            assert await stored(after) == {"a": b"v"}


async def test_a_backend_killed_at_its_commit_leaves_the_outcome_unknown() -> None:
    """The statement's result has arrived, and nothing after it."""
    with Server() as server:
        async with writing(server.dsn()) as (writer, db):
            suicide = AT_COMMIT.format("COPY (SELECT) TO PROGRAM 'kill -9 $PPID';")
            await db.execute(suicide.encode())
            assert await outcomes(put(writer, "odd"), put(writer, "a")) == [WriteUncertain] * 2


async def test_writes_under_a_crash_are_told_as_they_are() -> None:
    """Connections full of writes when the server is killed: every OK is there, every certain no is not."""
    with Server() as server:
        async with writing(server.dsn(), connections=2) as (writer, _):
            writes = {f"k{n}": put(writer, f"k{n}") for n in range(400)}
            await until(lambda: writer.written >= 100)
            await asyncio.to_thread(server.kill9)
            ended = dict(
                zip(writes, await asyncio.gather(*writes.values(), return_exceptions=True), strict=True)
            )
            server.start()
            async with await Database.connect(server.dsn(), autocommit=True) as after:
                there = await stored(after)
            told = {key for key, each in ended.items() if isinstance(each, Written)}
            unknown = {key for key, each in ended.items() if isinstance(each, WriteUncertain)}
            assert len(told) >= 100
            assert told <= set(there) <= told | unknown


async def test_a_server_that_does_not_answer_leaves_the_outcome_unknown() -> None:
    """Stopped dead: after ``timeout`` nobody knows, and the breaker has heard of it."""
    with Server() as server:
        async with writing(server.dsn(), timeout_s=0.3) as (writer, _):
            await put(writer, "a")
            server.pause()
            try:
                assert await outcomes(put(writer, "b")) == [WriteUncertain]
                await until(lambda: not writer._tasks)
                assert "failures=1" in repr(writer._breaker)
            finally:
                server.continue_()


async def test_a_deadline_before_sending_is_a_certain_no(database: str) -> None:
    """A write that waits for a connection until its deadline is withdrawn; so is one whose caller leaves."""
    async with writing(database) as (writer, db):
        async with stuck(database):
            first = put(writer, "odd")
            await writer_waits(db)
            left = put(writer, "left")
            await until(lambda: writer.queued == 1)
            left.cancel()
            assert await outcomes(put(writer, "late", within_s=0.05)) == [DeadlineExceeded]
            assert writer.queued == 0
        assert await outcomes(first, put(writer, "a")) == [Written, Written]
        assert set(await stored(db)) == {"odd", "a"}


async def test_a_deadline_after_sending_is_no_answer(database: str) -> None:
    """The caller hears that nobody knows yet, or has left; the write goes on."""
    async with writing(database) as (writer, db):
        async with stuck(database):
            late, left = put(writer, "odd", within_s=0.3), put(writer, "left")
            await writer_waits(db)
            left.cancel()
            assert await outcomes(late) == [WriteUncertain]
        assert await outcomes(put(writer, "a")) == [Written]
        assert set(await stored(db)) == {"odd", "left", "a"}


async def test_the_queue_is_bounded(database: str) -> None:
    """A write too many is refused at once, with a hint when to come again."""
    async with writing(database, queue=2) as (writer, db):
        async with stuck(database):
            first = put(writer, "odd")
            await writer_waits(db)
            waiting = [put(writer, "a"), put(writer, "b")]
            with pytest.raises(Overloaded, match="retry after"):
                await put(writer, "c")
        assert await outcomes(first, *waiting) == [Written] * 3
        assert (writer.refused, set(await stored(db))) == (1, {"odd", "a", "b"})


async def test_a_database_out_of_reach_is_a_certain_no() -> None:
    """No connection, nothing sent; after enough of it the breaker refuses before anyone tries."""
    writer = writer_for("postgresql://127.0.0.1:1/none")
    assert await outcomes(put(writer, "a")) == [Unavailable]
    assert await outcomes(put(writer, "a")) == [Unavailable]
    tried = writer._connections.opened
    assert await outcomes(put(writer, "a")) == [Unavailable]
    assert (tried, writer._connections.opened) == (2, 2)


async def test_when_the_breaker_opens_what_waits_is_a_certain_no(database: str) -> None:
    """At once, although the connections are busy; what was sent goes on."""
    async with writing(database) as (writer, db):
        async with stuck(database):
            sent = put(writer, "odd")
            await writer_waits(db)
            waiting = put(writer, "a")
            await until(lambda: writer.queued == 1)
            for _ in range(2):
                writer._breaker.failed("a poll failed")
            assert await outcomes(waiting, put(writer, "b")) == [Unavailable, Unavailable]
        assert await outcomes(sent) == [Written]
        assert set(await stored(db)) == {"odd"}


async def test_a_writer_that_stops_tells_the_truth_about_each(database: str) -> None:
    """Sent: nobody knows. Waiting, or come later: certainly not."""
    async with writing(database) as (writer, db), stuck(database):
        sent = put(writer, "odd")
        await writer_waits(db)
        waiting = put(writer, "a")
        await until(lambda: writer.queued == 1)
        await writer.stop()
        assert await outcomes(sent, waiting, put(writer, "b")) == [WriteUncertain, NodeStopping, NodeStopping]


async def test_a_schema_made_anew_is_no_lasting_trouble(database: str) -> None:
    """A connection that prepared the old function is not used again."""
    async with writing(database) as (writer, db):
        await put(writer, "a")
        await db.execute("DROP FUNCTION snapring.write")
        await db.execute(
            "CREATE FUNCTION snapring.write(text[], bytea[], bigint[], boolean, OUT xid int, OUT version int,"
            " OUT incarnation bigint, OUT existed int, OUT refused text, OUT seen text)"
            " RETURN (7, 6, 8::bigint, 9, NULL::text, NULL::text)"
        )
        assert await outcomes(put(writer, "b"), put(writer, "c")) == [QueryFailed] * 2
        assert await put(writer, "d") == Written(xid=7, version=6, incarnation=8, existed=9)
