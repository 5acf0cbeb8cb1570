"""Every fault of the proof does what it says to a real server and a real node, and is mended afterwards."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

import hiredis
import psycopg
import pytest
import pytest_asyncio

from cluster import capture
from scripts.demonstration.node_info import parsed
from scripts.demonstration.resp import Resp
from scripts.proof.faults import (
    FAULTS,
    FaultFailed,
    behind,
    clocks,
    line,
    needs_of,
    promotion,
    server,
    standstill,
)
from scripts.proof.ground import Ground, standing
from scripts.proof.link import Towards
from scripts.proof.proxy import HOST
from scripts.proof.schedule import answering

WITHIN_S: Final = 90.0
SCHEMA: Final = "CREATE TABLE items (id int PRIMARY KEY, value text); INSERT INTO items VALUES (1, 'first')"
SETTINGS: Final[Mapping[str, str]] = {
    "postgres": 'connect_timeout = "500ms"\nstatement_timeout = "1s"',
    "feed": 'poll_timeout = "500ms"',
    "breaker": 'failures = 1000\nreset = "50ms"',
    "load": 'timeout = "2s"',
    "caches.item": "sql = 'SELECT value FROM items WHERE id = $1'\nsingle = true",
}
LOADER: Final = "snapring loader"
TIMELINE: Final = "SELECT ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int"
INCARNATION: Final = "SELECT snapring.incarnation()"

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground() -> AsyncIterator[Ground]:
    """What all faults here befall, one after another."""
    needs = needs_of(FAULTS.values())
    async with standing(
        prepare=_prepare,
        node_settings=SETTINGS,
        server_settings=needs.settings,
        epoch=needs.epoch,
        stepping=needs.clock,
    ) as ground:
        yield ground


async def _prepare(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as owner:
        await owner.execute(SCHEMA.encode())
        await capture.install(owner)
        await capture.track(owner, "items")


async def one(ground: Ground, query: str) -> object:
    """The one value of a query at the primary."""
    async with await psycopg.AsyncConnection.connect(ground.dsn(), autocommit=True) as connection:
        row = await (await connection.execute(query.encode())).fetchone()
        return row and row[0]


async def said(ground: Ground, *words: bytes) -> object:
    """What the node answers."""
    connection = await Resp.open(HOST, ground.node.port)
    try:
        return (await connection.ask([words]))[0]
    finally:
        await connection.close()


async def keys(ground: Ground) -> set[int]:
    """The rows that there are."""
    found = await one(ground, "SELECT array_agg(id) FROM items")
    assert isinstance(found, list)
    return set(found)


async def backends(ground: Ground, name: str) -> set[int]:
    """The processes of the server that serve the node's connections of that name."""
    found = await one(
        ground, f"SELECT array_agg(pid) FROM pg_stat_activity WHERE application_name = '{name}'"
    )
    return set(found) if isinstance(found, list) else set()


async def voided(ground: Ground) -> int:
    """How often the node has forgotten everything."""
    return int(parsed(await said(ground, b"INFO"))["voided"])


async def put(ground: Ground, key: int, value: str) -> int:
    """Write a row at the primary; the xid, once that is acknowledged."""
    async with await psycopg.AsyncConnection.connect(ground.dsn(), autocommit=True) as connection:
        row = await (
            await connection.execute(
                b"INSERT INTO items VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET value = excluded.value"
                b" RETURNING pg_current_xact_id()::text",
                (key, value),
            )
        ).fetchone()
    assert row is not None
    return int(row[0])


async def recovered(ground: Ground) -> None:
    """The node gives strong answers again, and right ones."""
    await answering(ground.node.port, b"item:1", WITHIN_S)
    value = await one(ground, "SELECT value FROM items WHERE id = 1")
    reply = await said(ground, b"SNAP.GET", b"item:1", b"STRONG")
    assert isinstance(reply, dict)
    assert str(value).encode() in reply[b"value"]


async def carried_out(ground: Ground, fault: Awaitable[str], during: Callable[[], Awaitable[bool]]) -> str:
    """Let a fault happen; what it says of itself. ``during()`` must come true while it lasts."""
    task = asyncio.ensure_future(fault)
    while not await during():
        assert not task.done(), f"never so during the fault: {await task}"
        await asyncio.sleep(0)
    assert not task.done()
    return await task


def state(pid: int) -> str:
    """A process's state, ``T`` for stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_a_restart_is_the_same_server_in_new_processes(ground: Ground) -> None:
    """Same address, same incarnation: nothing is void."""
    before = ground.server.pid, ground.server.port, await one(ground, INCARNATION)
    await server.restarted(ground, Random(1), longest_s=0.1)
    after = ground.server.pid, ground.server.port, await one(ground, INCARNATION)
    assert before[0] != after[0]
    assert before[1:] == after[1:]
    await recovered(ground)


async def test_a_killed_server_recovers_at_its_address(ground: Ground) -> None:
    """A new incarnation at the same port."""
    before = ground.server.pid, await one(ground, INCARNATION), ground.server.port
    await server.killed(ground, Random(1), longest_s=0.1)
    await recovered(ground)
    assert ground.server.pid != before[0]
    assert await one(ground, INCARNATION) != before[1]
    assert ground.server.port == before[2]


async def test_a_killed_backend_makes_the_server_start_over(ground: Ground) -> None:
    """The postmaster lives on, and is another incarnation."""
    before = ground.server.pid, await one(ground, INCARNATION)
    await server.backend_killed(ground, Random(1))
    await recovered(ground)
    assert ground.server.pid == before[0]
    assert await one(ground, INCARNATION) != before[1]


@needs_proc
async def test_a_paused_server_stands_still(ground: Ground) -> None:
    """Its processes are stopped meanwhile, and its sessions go on afterwards."""
    async with await psycopg.AsyncConnection.connect(ground.dsn()) as session:

        async def still() -> bool:
            return state(ground.server.pid) == "T" and state(session.info.backend_pid) == "T"

        await carried_out(ground, server.paused(ground, Random(1), longest_s=0.5), still)
        assert await (await session.execute("SELECT 1")).fetchone() == (1,)
    await recovered(ground)


async def test_a_forgetful_crash_loses_commits_and_gives_their_xids_to_others(ground: Ground) -> None:
    """The node, which had seen them, refuses the tokens of then."""
    seen: dict[int, tuple[int, bytes]] = {}
    crash = asyncio.ensure_future(server.forgetful(ground, Random(1), longest_s=0.3))
    with contextlib.suppress(psycopg.OperationalError):
        for key in count(1000):
            xid = await put(ground, key, "lost?")
            reply = await said(ground, b"SNAP.GET", b"item:%d" % key, b"STRONG")
            seen[key] = xid, reply[b"as_of"] if isinstance(reply, dict) else b""
    assert "lost what had been acknowledged" in await crash
    lost = sorted(seen.keys() - await keys(ground))
    assert lost
    xid, token = seen[lost[0]]
    while int(str(await one(ground, "SELECT pg_current_xact_id()"))) <= xid:
        pass
    assert await one(ground, f"SELECT pg_xact_status('{xid}')") == "committed", "another one of that name"
    await recovered(ground)
    answer = await said(ground, b"SNAP.GET", b"item:1", b"ATLEAST", token)
    assert str(answer).startswith("TOKEN_FOREIGN")
    assert await one(ground, "SHOW synchronous_commit") == "on"


async def test_a_promoted_standby_lacks_what_was_acknowledged(ground: Ground) -> None:
    """Another server on the next timeline, which the node follows; the old one is gone."""
    old, generation, timeline = ground.server, ground.generation, await one(ground, TIMELINE)
    acknowledged = set()
    takeover = asyncio.ensure_future(promotion.promoted(ground, Random(1), longest_s=0.3))
    with contextlib.suppress(psycopg.OperationalError):
        for key in count(2000):
            await put(ground, key, "lost?")
            acknowledged.add(key)
    assert "without what was acknowledged" in await takeover
    assert acknowledged - await keys(ground)
    assert await one(ground, TIMELINE) == int(str(timeline)) + 1
    assert ground.generation == generation + 1
    assert not old.is_running
    assert not old.directory.exists()
    await put(ground, 1, "after the promotion")
    await recovered(ground)


@pytest.mark.parametrize("only", [line.FEED, None], ids=["feed", "connections"])
async def test_cut_connections_are_new_ones_afterwards(ground: Ground, only: str | None) -> None:
    """The loaders' stay if the feed's alone is cut."""
    await put(ground, 1, "to be loaded")
    await recovered(ground)
    feed, loaders = await backends(ground, line.FEED), await backends(ground, LOADER)
    assert "reset" in await line.cut(ground, Random(1), only=only, longest_s=0.1)
    await recovered(ground)
    cut = feed if only else feed | loaders
    async with asyncio.timeout(WITHIN_S):
        while cut & (await backends(ground, line.FEED) | await backends(ground, LOADER)):
            await asyncio.sleep(0.01)  # a backend takes its time to notice
    if only:
        assert loaders & await backends(ground, LOADER)


@pytest.mark.parametrize("only", [line.FEED, None], ids=["feed", "connections"])
@pytest.mark.parametrize("break_", [line.stalled, line.black_holed])
async def test_a_silent_line_is_mended(
    ground: Ground, break_: Callable[..., Awaitable[str]], only: str | None
) -> None:
    """Nothing that the node asks for comes back meanwhile; later everything does."""
    await recovered(ground)

    async def silent() -> bool:
        answer = await said(ground, b"SNAP.GET", b"item:1", b"STRONG", b"TIMEOUT", b"100")
        return isinstance(answer, hiredis.ReplyError)

    await carried_out(ground, break_(ground, Random(1), only=only, longest_s=1.0), silent)
    assert ground.proxy.rule(only, Towards.SERVER) == ground.proxy.rule(only, Towards.CLIENT)
    await recovered(ground)


async def test_a_refused_line_lets_nobody_in(ground: Ground) -> None:
    """Until it is mended, at the same port."""

    async def refused() -> bool:
        try:
            _, writer = await asyncio.open_connection(HOST, ground.proxy.port)
        except (ConnectionRefusedError, ConnectionResetError):
            return True
        writer.close()
        return False

    await carried_out(ground, line.refused(ground, Random(1), longest_s=0.5), refused)
    assert not await refused()
    await recovered(ground)


async def test_a_slow_line_delays(ground: Ground) -> None:
    """Everything, in both directions."""

    async def late() -> bool:
        return all(ground.proxy.rule(None, towards).delay_s > 0 for towards in Towards)

    await carried_out(ground, line.slow(ground, Random(1), longest_s=0.3), late)
    assert not await late()
    await recovered(ground)


async def test_trimmed_changes_make_the_node_forget_everything(ground: Ground) -> None:
    """It had seen less than what is gone, notices, and serves on."""
    await recovered(ground)
    before = await voided(ground)
    assert "trimmed to" in await standstill.trimmed(ground, Random(1), longest_s=0.1)
    await recovered(ground)
    assert await voided(ground) > before


@needs_proc
async def test_a_paused_node_stands_still(ground: Ground) -> None:
    """Its process is stopped meanwhile, and goes on afterwards."""

    async def still() -> bool:
        return state(ground.node.pid) == "T"

    await carried_out(ground, standstill.paused(ground, Random(1), seconds=0.2), still)
    assert not await still()
    await recovered(ground)


async def test_a_stepped_clock_is_the_nodes_and_the_servers(ground: Ground) -> None:
    """The fault itself looks at both clocks; afterwards they are right."""
    assert "off by" in await clocks.stepped(ground, Random(1), longest_s=0.1)
    assert await one(ground, f"SELECT abs(extract(epoch FROM now()) - {time.time()}) < 600") is True
    await recovered(ground)


async def test_without_a_clock_that_steps_the_fault_says_so(ground: Ground) -> None:
    """Nothing is claimed that did not happen."""
    with pytest.raises(FaultFailed, match="without a clock"):
        await clocks.stepped(replace(ground, clock=None), Random(1))


async def test_answers_from_before_a_crash_change_nothing_after_it(ground: Ground) -> None:
    """They are delivered when the server is another one, and its node believes only that one."""
    before = await one(ground, INCARNATION)
    await put(ground, 1, "before the crash")
    assert "the answers of before" in await behind.crashed(ground, Random(1), longest_s=0.2)
    assert await one(ground, INCARNATION) != before
    await recovered(ground)


@needs_proc
async def test_a_promotion_while_the_node_stands_still_is_noticed(ground: Ground) -> None:
    """Afterwards it follows the new primary."""
    generation = ground.generation

    async def still() -> bool:
        return state(ground.node.pid) == "T"

    await carried_out(ground, behind.promoted(ground, Random(1), longest_s=0.2), still)
    assert ground.generation == generation + 1
    await put(ground, 1, "after the promotion")
    await recovered(ground)


async def test_xids_are_high_from_the_start(ground: Ground) -> None:
    """32 bits do not hold them."""
    assert "xids have reached" in await clocks.high(ground, Random(1))
    assert await put(ground, 3, "high") > 2**32
