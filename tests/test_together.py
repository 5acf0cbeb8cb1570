"""Several keys at one snapshot: what is read together was there together."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from math import inf

import psycopg
import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st

from cluster.config import CacheConfig, FeedConfig
from cluster.doors.resp import RespDoor
from cluster.node import Node
from cluster.requests import Exactly, Reply, Source, State
from cluster.snapshots import Snapshot
from cluster.together import alike, at_one_snapshot
from doors import resp_config
from nodes import captured, config, running
from snapring.errors import QueryFailed, SnapshotUnavailable, TokenForeign

ACCOUNTS = 8
SLOW = FeedConfig(poll_period_s=0.05)
SCHEMA = f"""
CREATE TABLE accounts (id int PRIMARY KEY, amount int);
INSERT INTO accounts SELECT n, 100 FROM generate_series(1, {ACCOUNTS}) n;
"""
AMOUNT = CacheConfig(
    name="amount",
    sql="SELECT amount FROM accounts WHERE id = $1",
    single=True,
    encoding="json",
    max_staleness_s=600.0,
)
KEYS = [f"amount:{n}" for n in range(1, ACCOUNTS + 1)]


def reply(at: int, incarnation: int = 1) -> Reply:
    """True at snapshot ``at``."""
    return Reply(
        value=b"%d" % at, as_of=Snapshot(at, at), incarnation=incarnation, age_s=0.0, state=State.FRESH,
        source=Source.LOCAL,
    )  # fmt: skip


class Changing:
    """Keys of which each is true from its last change on; time goes on with each look."""

    def __init__(self, changes: Sequence[int], *, step: int = 1, incarnation: int = 1) -> None:
        self.changes = list(changes)
        self.now = max(changes)
        self.step = step
        self.incarnation = incarnation
        self.looks = 0

    async def read(self, n: int, at: Exactly | None) -> Reply:
        self.looks += 1
        if at is None:
            self.now += self.step
            return reply(self.now, self.incarnation)
        if at.incarnation != self.incarnation:
            raise TokenForeign("another")
        if at.snapshot.xmax < self.changes[n]:
            raise SnapshotUnavailable("changed since")
        return reply(at.snapshot.xmax, self.incarnation)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=9))
def test_what_does_not_change_is_brought_together_in_two_rounds(changes: list[int]) -> None:
    """However far apart the first answers are."""
    keys = Changing(changes)
    replies = asyncio.run(at_one_snapshot(keys.read, len(changes)))
    assert len({str(each.as_of) for each in replies}) == 1
    assert replies[0].as_of.xmax == max(changes) + len(changes), "the newest"
    assert keys.looks <= 2 * len(changes)


@pytest.mark.parametrize("state", State)
async def test_alike_means_one_age_and_one_state_too(state: State) -> None:
    """The age of the oldest, as it has become meanwhile, and STALE if one of them is."""
    now = iter([10.0, 11.0, 13.0])

    async def read(n: int, _at: Exactly | None) -> Reply:
        return replace(reply(5), age_s=(0.5, 4.0)[n], state=(state, State.FRESH)[n])

    replies = await alike(read, 2, lambda: next(now))
    assert {(each.age_s, each.state) for each in replies} == {(6.0, state)}


async def test_a_key_that_has_changed_meanwhile_moves_the_others() -> None:
    """It cannot be had at the first meeting place, so they meet where it can."""
    keys = Changing([1, 1, 1])
    read = keys.read

    async def changing(n: int, at: Exactly | None) -> Reply:
        if at is not None and n == 0 and keys.changes[0] == 1:
            keys.changes[0] = keys.now = 90
        return await read(n, at)

    replies = await at_one_snapshot(changing, 3)
    assert {each.as_of.xmax for each in replies} == {91}


async def test_keys_that_never_meet_are_an_error() -> None:
    """After a bounded number of rounds, and never an answer of two snapshots."""
    keys = Changing([1, 1])

    async def restless(n: int, at: Exactly | None) -> Reply:
        if at is not None:
            raise SnapshotUnavailable("changed since")
        return await keys.read(n, at)

    with pytest.raises(SnapshotUnavailable, match="change faster"):
        await at_one_snapshot(restless, 2)
    assert keys.looks < 20


async def test_a_crash_between_the_answers_is_no_meeting_place() -> None:
    """What was read before it is read anew."""
    keys = Changing([1, 1, 1])
    read = keys.read

    async def crashing(n: int, at: Exactly | None) -> Reply:
        if n == 2 and keys.incarnation == 1:
            keys.incarnation = 2
        return await read(n, at)

    replies = await at_one_snapshot(crashing, 3)
    assert [(each.incarnation, each.as_of) for each in replies] == [(2, replies[0].as_of)] * 3


async def test_any_other_failure_is_the_failure_of_all() -> None:
    """And ends the looks that are under way."""
    ended = []

    async def failing(n: int, at: Exactly | None) -> Reply:
        try:
            await asyncio.sleep(0 if n == 1 else 60)
        except asyncio.CancelledError:
            ended.append(n)
            raise
        raise QueryFailed("no")

    with pytest.raises(QueryFailed):
        await at_one_snapshot(failing, 3)
    await asyncio.sleep(0)
    assert ended == [0, 2]


async def transfer(url: str, stop: asyncio.Event) -> None:
    """Move money on and on: the sum stays."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as db:
        turn = 0
        while not stop.is_set():
            turn += 1
            one, other = turn % ACCOUNTS + 1, (turn * 3 + 1) % ACCOUNTS + 1
            async with db.transaction():
                await db.execute("UPDATE accounts SET amount = amount - 7 WHERE id = %s", (one,))
                await db.execute("UPDATE accounts SET amount = amount + 7 WHERE id = %s", (other,))


async def sums(node: Node, door: RespDoor, command: str, rounds: int) -> list[int]:
    """The sums of all accounts that a client sees, some of them in memory and some not, read after read."""
    seen = []
    async with redis.asyncio.Redis(port=door.port, protocol=3, single_connection_client=True) as client:
        for _ in range(rounds):
            for key in KEYS[::2]:
                node.store.remove(key.encode())
            try:
                found = await client.execute_command(command, *KEYS)
            except redis.ResponseError as error:
                assert str(error).startswith("SNAPSHOT_UNAVAILABLE")
                continue
            values = found[b"values"] if isinstance(found, dict) else found
            seen.append(sum(json.loads(value)["amount"] for value in values))
    return seen


@pytest.mark.parametrize("command", ["SNAP.MGET", "MGET"])
async def test_money_in_transit_is_never_missing(database: str, command: str) -> None:
    """While it moves from account to account; MGET, whose keys are read each for itself, does miss some."""
    async with captured(database, SCHEMA), running(config(database, (AMOUNT,), feed=SLOW)) as node:
        door = RespDoor(node, resp_config())
        await door.start()
        stop = asyncio.Event()
        moving = asyncio.create_task(transfer(database, stop))
        try:
            seen = await sums(node, door, command, 150)
        finally:
            stop.set()
            await moving
            await door.drain(0.0)
    assert len(seen) > 20
    assert (set(seen) == {100 * ACCOUNTS}) == (command == "SNAP.MGET")


async def test_what_comes_with_the_values(database: str) -> None:
    """One token for all: what it names sees what was read; keys with tokens of their own, and none there."""
    async with captured(database, SCHEMA), running(config(database, (AMOUNT,))) as node:
        door = RespDoor(node, resp_config())
        await door.start()
        async with redis.asyncio.Redis(port=door.port, protocol=3) as client:
            token = (await client.execute_command("SNAP.TOKEN", "STRONG")).decode()
            found = await client.execute_command(
                "SNAP.MGET", f"{{amount:1}}@{token}", "amount:77", "amount:2"
            )
            assert [value and json.loads(value)["amount"] for value in found[b"values"]] == [100, None, 100]
            assert found[b"state"] == b"FRESH"
            assert 0 <= found[b"age_ms"] < inf
            exact = await client.execute_command("SNAP.GET", "amount:1", "EXACT", found[b"as_of"].decode())
            assert exact[b"as_of"] == found[b"as_of"]
        await door.drain(0.0)
