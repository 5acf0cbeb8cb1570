"""What a node answers, how long it lets callers wait, and how it treats Postgres, while that cannot serve.

The table is the whole of the answers: by the consistency asked (rows) and by what is the matter (columns),
once the node has found out. FRESH and STALE are answers, everything else is the error's code.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from time import monotonic
from typing import Final

import psycopg
import pytest
from _pytest.raises import RaisesExc

import conditions
from cluster.config import BreakerConfig, LoadConfig
from cluster.node import Node
from cluster.requests import BOUNDED, STRONG, Consistency, Reply
from conditions import FAR_S, KEYS, LOADERS, SLOTS, Condition, Ground, down, ground, silent
from nodes import WITHIN_S, caught_up, loads, read, running, until, value_of
from servers import Server
from snapring.errors import DeadlineExceeded, SnapringError, Unavailable
from snapring.keys import parse

TABLE: Final = """
asked                         | in reach             | out of reach | locked        | slow
------------------------------+----------------------+--------------+---------------+---------------------
bounded, young in memory      | FRESH                | FRESH        | FRESH         | FRESH
bounded, old in memory        | FRESH                | UNAVAILABLE  | FRESH         | UNAVAILABLE
bounded, old, stale_if_error  | FRESH                | STALE        | FRESH         | STALE
bounded, not in memory        | FRESH                | UNAVAILABLE  | QUERY_TIMEOUT | FRESH
at least, seen                | FRESH                | FRESH        | FRESH         | FRESH
at least, unseen              | TOKEN_AHEAD          | UNAVAILABLE  | QUERY_TIMEOUT | TOKEN_AHEAD
strong, in memory             | FRESH                | UNAVAILABLE  | FRESH         | FRESH
strong, not in memory         | FRESH                | UNAVAILABLE  | QUERY_TIMEOUT | FRESH
exactly, in memory            | FRESH                | FRESH        | FRESH         | FRESH
exactly, written since        | SNAPSHOT_UNAVAILABLE | UNAVAILABLE  | QUERY_TIMEOUT | SNAPSHOT_UNAVAILABLE
exactly, unwritten since      | FRESH                | UNAVAILABLE  | QUERY_TIMEOUT | FRESH
another table, not in memory  | FRESH                | UNAVAILABLE  | FRESH         | FRESH
"""

OUT_OF_REACH: Final = (
    conditions.down,
    conditions.recovering,
    conditions.standby,
    conditions.refused_by_hba,
    conditions.refused_by_the_database,
    conditions.exhausted,
    conditions.silent,
)


def column(name: str) -> dict[str, str]:
    """What the table says of one condition."""
    head, _, *rows = ([cell.strip() for cell in line.split("|")] for line in TABLE.strip().splitlines())
    at = head.index(name)
    return {row[0]: row[at] for row in rows}


@dataclass(frozen=True, slots=True)
class Ask:
    """One row of the table: a key and the consistency it is asked with."""

    key: str
    consistency: Consistency = BOUNDED


@asynccontextmanager
async def broken_ground() -> AsyncIterator[Ground]:
    """A server of the test's own, with few connections."""
    settings = {"max_connections": str(SLOTS), "superuser_reserved_connections": "0"}
    with Server(settings=settings) as server:
        async with ground(server) as made:
            yield made


@pytest.fixture
async def own() -> AsyncIterator[Ground]:
    """Ground that this test may break."""
    async with broken_ground() as made:
        yield made


async def prepared(node: Node, ground: Ground) -> dict[str, Ask]:
    """Put into memory what the table's rows are about; the rows as questions."""
    first = await read(node, "strict:9")
    token = node.token(first.as_of, first.incarnation)
    await conditions.run(ground.url, "UPDATE users SET name = 'new' WHERE id = 9")
    for key in ("lasting:7", "strict:7", "patient:7"):
        await read(node, key)
    await caught_up(node)
    known = await read(node, "strict:7")
    seen = node.at_least(node.token(known.as_of, known.incarnation))
    unseen = node.at_least(node.ticket(known.as_of.xmax + 1000))
    at = node.exactly(node.token(known.as_of, known.incarnation))
    return {
        "bounded, young in memory": Ask("lasting:7"),
        "bounded, old in memory": Ask("strict:7"),
        "bounded, old, stale_if_error": Ask("patient:7"),
        "bounded, not in memory": Ask("lasting:8"),
        "at least, seen": Ask("strict:7", seen),
        "at least, unseen": Ask("patient:7", unseen),
        "strong, in memory": Ask("patient:7", STRONG),
        "strong, not in memory": Ask("patient:10", STRONG),
        "exactly, in memory": Ask("strict:7", at),
        "exactly, written since": Ask("lasting:9", node.exactly(token)),
        "exactly, unwritten since": Ask("lasting:11", at),
        "another table, not in memory": Ask("elsewhere:1"),
    }


async def answer(node: Node, ask: Ask) -> str:
    """One cell."""
    try:
        return (await read(node, ask.key, ask.consistency)).state.value
    except SnapringError as error:
        return error.code


async def answers(node: Node, asked: dict[str, Ask]) -> dict[str, str]:
    """One column."""
    return {row: await answer(node, ask) for row, ask in asked.items()}


async def aged(node: Node) -> None:
    """Wait until what the node knows is older than its impatient caches allow."""
    await until(lambda: monotonic() > node.fresh_until_s)


async def test_in_reach_the_table_is_answered_from_memory_or_by_a_load(own: Ground) -> None:
    """The control: nothing is the matter."""
    async with running(own.config()) as node:
        assert await answers(node, await prepared(node, own)) == column("in reach")


@pytest.mark.parametrize("condition", OUT_OF_REACH)
async def test_out_of_reach_only_what_memory_vouches_for_is_answered(
    own: Ground, condition: Condition
) -> None:
    """Why Postgres cannot serve makes no difference to what is answered, and afterwards everything is again."""
    async with running(own.config()) as node:
        asked = await prepared(node, own)
        async with condition(own):
            await until(lambda: not node.breaker.closed)
            await aged(node)
            assert await answers(node, asked) == column("out of reach")
        await until(lambda: node.breaker.closed)
        assert value_of(await read(node, "strict:8", STRONG)) is not None


async def test_behind_a_lock_only_loads_of_that_table_fail(own: Ground) -> None:
    """Postgres is well: the feed goes on, entries stay fresh, other tables load, the breaker stays closed."""
    async with running(own.config()) as node:
        asked = await prepared(node, own)
        async with conditions.locked(own):
            assert await answers(node, asked) == column("locked")
            assert node.breaker.closed


async def test_slow_nothing_passes_as_younger_than_it_is(own: Ground) -> None:
    """A round trip longer than a cache's ``max_staleness`` proves nothing young enough for it."""
    async with running(own.config(token_wait_s=0.5, load=LoadConfig(timeout_s=WITHIN_S))) as node:
        asked = await prepared(node, own)
        async with conditions.slow(own):
            await aged(node)
            assert await answers(node, asked) == column("slow")
            assert node.breaker.closed


@pytest.mark.parametrize(
    ("changes", "deadline_s", "ends_with"),
    [
        ({}, 0.3, pytest.raises(DeadlineExceeded)),
        ({"load": LoadConfig(timeout_s=0.3)}, FAR_S, pytest.raises(Unavailable, match=r"within 0\.3 s")),
    ],
    ids=["the request's deadline", "load.timeout"],
)
async def test_the_first_request_waits_no_longer_than(
    own: Ground, changes: dict[str, object], deadline_s: float, ends_with: RaisesExc[SnapringError]
) -> None:
    """Before the breaker opens nobody knows that Postgres is silent; each bound alone ends the wait."""
    async with running(replace(own.patient(), **changes)) as node:  # type: ignore[arg-type]
        await read(node, "lasting:1")
        async with silent(own):
            with ends_with:
                await node.read(parse(b"lasting:2")[0], BOUNDED, monotonic() + deadline_s)
            assert node.breaker.closed


async def test_the_first_request_waits_no_longer_than_a_connection_may_take(own: Ground) -> None:
    """The same where there is no connection yet."""
    patient = own.patient()
    hasty = replace(patient, postgres=replace(patient.postgres, connect_timeout_s=0.3))
    async with running(hasty) as node, silent(own):
        with pytest.raises(Unavailable, match=r"no connection to Postgres within 0\.3 s"):
            await node.read(parse(b"lasting:2")[0], BOUNDED, monotonic() + FAR_S)
        assert node.breaker.closed


async def test_a_connection_that_falls_silent_at_once_is_given_up(own: Ground) -> None:
    """Even the first one of all, which is asked for its settings before anything else."""
    patient = own.patient()
    hasty = replace(patient, postgres=replace(patient.postgres, connect_timeout_s=0.3))
    async with await psycopg.AsyncConnection.connect(own.url) as owner:
        await owner.execute("LOCK TABLE pg_catalog.pg_proc IN ACCESS EXCLUSIVE MODE")
        node = Node(hasty)
        task = asyncio.create_task(node.run())
        await until(lambda: node.feed.failures)
        assert "within 0.3 s" in node.feed.last_error
    await until(lambda: not node.feed.last_error)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_once_open_nothing_is_asked_of_the_network(own: Ground) -> None:
    """A thousand refusals later nobody has knocked."""
    unhurried = own.config(breaker=BreakerConfig(failures=3, reset_s=FAR_S))
    async with running(unhurried) as node:
        await caught_up(node)
        async with down(own):
            await until(lambda: node.breaker.state == "open")
            attempts = len(own.line.knocks)
            for key in range(KEYS):
                with pytest.raises(Unavailable, match="out of reach"):
                    await read(node, f"lasting:{key}")
            assert len(own.line.knocks) == attempts


@pytest.mark.parametrize("condition", [down, conditions.recovering, conditions.exhausted])
async def test_only_the_feed_knocks_and_once_per_probe(own: Ground, condition: Condition) -> None:
    """However many callers ask, a database that cannot serve gets one connection attempt per probe."""
    async with running(own.config()) as node:
        await caught_up(node)
        async with condition(own):
            await until(lambda: not node.breaker.closed)
            probes, attempts = node.feed.failures, len(own.line.knocks)
            asking = [asyncio.create_task(_until_answered(node, key)) for key in range(1, 100)]
            await until(lambda: node.feed.failures >= probes + 5)
            # One attempt may be under way at either end.
            assert abs((len(own.line.knocks) - attempts) - (node.feed.failures - probes)) <= 1
            assert own.line.loaders == 0
        await asyncio.gather(*asking)


async def test_no_herd_follows_when_postgres_comes_back(own: Ground) -> None:
    """A thousand callers, a thousand keys: each loaded once, in batches, by as many connections as configured."""
    async with running(own.config()) as node:
        await caught_up(node)
        async with down(own):
            await until(lambda: not node.breaker.closed)
            asking = [asyncio.create_task(_until_answered(node, key)) for key in range(1, KEYS + 1)]
            await asyncio.sleep(0)
        names = [value_of(reply)["name"] for reply in await asyncio.gather(*asking)]  # type: ignore[index]
        assert names == [f"user {key}" for key in range(1, KEYS + 1)]
        assert loads(node) == KEYS
        assert node.loader.batches <= KEYS // node.config.load.batch + 2 * LOADERS
        assert own.line.peaks["snapring loader"] <= LOADERS


async def test_a_silence_shorter_than_the_timeouts_fails_nobody(own: Ground) -> None:
    """Callers that wait when Postgres goes on are answered, each key by one load."""
    async with running(own.patient()) as node:
        await read(node, "lasting:1")
        own.line.stall()
        asking = [asyncio.create_task(read(node, f"lasting:{key}")) for key in range(1, KEYS + 1)]
        await until(lambda: node.loader.queued)
        await own.line.flow()
        assert {(await reply).state.value for reply in asking} == {"FRESH"}
        assert loads(node) == KEYS


async def test_an_opening_breaker_fails_those_who_wait_for_a_connection(own: Ground) -> None:
    """They would learn nothing from waiting; those whose query is under way may still be answered."""
    patient = own.patient()
    quick = replace(patient, feed=replace(patient.feed, poll_timeout_s=0.1))
    quick = replace(quick, breaker=BreakerConfig(failures=1, reset_s=0.05))
    async with running(quick) as node:
        await asyncio.gather(*(read(node, f"lasting:{key}") for key in range(1, 200)))
        own.line.stall()
        under_way, waiting = node.config.load.batch, 50
        keys = range(1, under_way + waiting + 1)
        asking = [asyncio.create_task(read(node, f"strict:{key}")) for key in keys]
        await until(lambda: not node.breaker.closed)
        await until(lambda: sum(task.done() for task in asking) == waiting)
        await own.line.flow()
        ends = await asyncio.gather(*asking, return_exceptions=True)
        assert [isinstance(end, Unavailable) for end in ends] == [False] * under_way + [True] * waiting


async def test_connections_from_before_the_silence_are_not_used_after_it(own: Ground) -> None:
    """The other end may have forgotten them; whoever loads over one would wait in vain when all is well."""
    async with running(own.config()) as node:
        await asyncio.gather(read(node, "lasting:1"), read(node, "elsewhere:1"))
        own.line.forget()
        async with silent(own):
            await until(lambda: not node.breaker.closed)
        await until(lambda: node.breaker.closed)
        assert (await read(node, "lasting:2")).state.value == "FRESH"
        assert (await read(node, "elsewhere:2")).state.value == "FRESH"


async def test_a_locked_table_does_not_hold_every_connection(own: Ground) -> None:
    """A thousand misses behind the lock, and another table is read all the same."""
    async with running(own.patient()) as node:
        await asyncio.gather(*(read(node, f"strict:{key}") for key in range(1, 200)))
        async with conditions.locked(own):
            behind = []
            for key in range(1, KEYS + 1):
                behind.append(asyncio.create_task(read(node, f"lasting:{key}")))
                await asyncio.sleep(0)
            assert value_of(await read(node, "elsewhere:1")) is not None
            assert not any(task.done() for task in behind)
        assert {(await reply).state.value for reply in behind} == {"FRESH"}


async def test_a_locked_table_is_no_outage(own: Ground) -> None:
    """However many misses the lock fails, Postgres is well and the breaker stays closed."""
    async with running(own.config()) as node:
        await caught_up(node)
        async with conditions.locked(own):
            behind = [asyncio.create_task(answer(node, Ask(f"lasting:{key}"))) for key in range(1, KEYS + 1)]
            assert "FRESH" not in {await code for code in behind}
            assert node.breaker.closed
            assert (await read(node, "elsewhere:1")).state.value == "FRESH"


async def _until_answered(node: Node, key: int) -> Reply:
    """Ask as an application does that tries again."""
    while True:
        try:
            return await read(node, f"lasting:{key}")
        except Unavailable:
            await asyncio.sleep(0.1)
