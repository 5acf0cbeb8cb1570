"""Tenants are heard in turns: one that floods waits for itself, and the others for a turn at most."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.access.guard import Guard
from cluster.config import AccessConfig, TenantConfig
from cluster.doors.resp.connection import Connection
from cluster.doors.resp.hearing import Hearing
from cluster.doors.resp.shares import Share, Shares
from doors import MemoryNode, Running, command, resp_config
from keys import holder, write_keys

ACME, ZETA = holder("billing", "acme"), holder("audit", "zeta")
TURN_S = 0.25
GET = command("GET", "users:1")


class Time:
    """A clock that passes when it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


class Nobody:
    """Who is two tenants of a door: the share of one of them, ``share``, and what has happened."""

    def __init__(self) -> None:
        self.time = Time()
        shares = Shares(TURN_S, self.time)
        self.strangers = shares.of(None)
        self.share = Share(shares, TURN_S, self.time)
        self.share.enter()
        self.other = Share(shares, TURN_S, self.time)
        self.other.enter()
        self.happened: list[str] = []

    def ask(self, name: str, took_s: float = TURN_S / 2) -> None:
        """Something that stands in line, and takes so long when it is heard."""

        def hear() -> None:
            self.happened.append(name)
            self.time.now += took_s

        self.share.wait(hear)

    async def until(self, count: int) -> list[str]:
        """What has happened once there is as much."""
        async with asyncio.timeout(10):
            while len(self.happened) < count:
                await asyncio.sleep(0)
        return self.happened


async def test_a_line_has_one_turn_in_each_round_of_the_loop() -> None:
    """Others are heard between any two, in whatever order they came."""
    tenant = Nobody()
    for name in "abcde":
        tenant.ask(name)
    for _ in range(3):
        await asyncio.sleep(0)
        tenant.happened.append("-")
    assert await tenant.until(8) == ["a", "b", "-", "c", "d", "-", "e", "-"]


async def test_who_takes_more_than_half_of_the_time_stands_in_line() -> None:
    """And has a whole turn again when two have passed."""
    tenant = Nobody()
    assert tenant.share.begin(tenant.time())
    tenant.time.now += TURN_S
    tenant.share.end()
    assert not tenant.share.begin(tenant.time())
    tenant.time.now += TURN_S * 1.5
    assert tenant.share.begin(tenant.time())
    assert tenant.share.until_s == tenant.time() + TURN_S
    tenant.share.charge(TURN_S)
    tenant.share.end()
    assert not tenant.share.begin(tenant.time())


async def test_who_comes_stands_behind_who_waits() -> None:
    """There is no turn beside the line."""
    tenant = Nobody()
    tenant.ask("a", 0.0)
    assert not tenant.share.begin(tenant.time())
    assert await tenant.until(1) == ["a"]
    tenant.time.now += TURN_S * 2.5
    assert tenant.share.begin(tenant.time())


async def test_a_tenant_that_is_alone_needs_no_turns() -> None:
    """As long as nobody else has a connection; its line, if it had one, is heard at once."""
    tenant = Nobody()
    for name in "abcde":
        tenant.ask(name)
    assert not tenant.share.free
    tenant.other.leave()
    assert tenant.share.free
    await asyncio.sleep(0)
    assert tenant.happened == ["a", "b", "c", "d", "e"]
    tenant.other.enter()
    assert not tenant.share.free
    assert not tenant.other.free


async def test_strangers_take_nobody_out_of_being_alone() -> None:
    """Who only connects does not slow a tenant down; he has turns, but where nobody else is."""
    tenant = Nobody()
    tenant.other.leave()
    tenant.strangers.enter()
    assert (tenant.share.free, tenant.strangers.free) == (True, False)
    tenant.share.leave()
    assert tenant.strangers.free


async def test_a_tenant_that_is_alone_rests_all_the_same() -> None:
    """And is as free as before when it has rested, unless somebody has come."""
    tenant = Nobody()
    tenant.other.leave()
    for seen in (True, False):
        tenant.share.rest(0.001)
        assert not tenant.share.free
        tenant.other.enter()
        if seen:
            tenant.other.leave()
        assert not tenant.share.free
        tenant.share.wait(lambda: tenant.happened.append("heard"))
        before = len(tenant.happened)
        await tenant.until(before + 1)
        assert tenant.share.free == seen


async def test_who_is_alone_does_not_stand_in_the_line_that_it_once_had() -> None:
    """What comes while it waits is heard at once, from whoever has nothing waiting."""
    tenant, ear = Nobody(), Deaf()
    waiting, coming = Hearing(ear, tenant.share), Hearing(ear, tenant.share)
    tenant.share.begin(tenant.time())
    tenant.share.charge(TURN_S)
    tenant.share.end()
    waiting.received(b"2", tenant.time())
    tenant.other.leave()
    coming.received(b"1", tenant.time())
    waiting.received(b"3", tenant.time())
    assert ear.heard == b"1"
    await asyncio.sleep(0)
    assert ear.heard == b"123"


async def test_who_has_stood_through_a_rest_is_heard_before_the_next() -> None:
    """However often the tenant has asked too much meanwhile: nobody waits for two rests."""
    tenant = Nobody()
    share = tenant.share
    share.rest(0.001)
    assert not share.begin(tenant.time())
    for name in "abc":
        share.wait(lambda name=name: (tenant.happened.append(name), share.rest(60.0)))  # type: ignore[misc]
    assert tenant.happened == []
    assert await tenant.until(3) == ["a", "b", "c"]
    share.wait(lambda: tenant.happened.append("d"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert tenant.happened == ["a", "b", "c"]


class Deaf:
    """An ear that only hears when it has to, ``settled`` as often as it says."""

    hears = True

    def __init__(self) -> None:
        self.heard = b""
        self.settled = 0

    def hear(self, data: bytes, now: float) -> None:
        """Keep it."""
        self.heard += data

    def settle(self) -> None:
        """Once more."""
        self.settled += 1


async def test_what_is_kept_out_of_turn_is_bounded() -> None:
    """More than 64 KiB is too much, until it has been heard, which loses nothing."""
    share, ear = Shares(TURN_S).of(None), Deaf()
    hearing = Hearing(ear, share)
    share.rest(0.001)
    pieces = [b"%d" % at * 16 * 1024 for at in range(6)]
    for piece in pieces:
        hearing.received(piece, 0.0)
    assert (hearing.has_room, ear.settled > 0, ear.heard) == (False, True, b"")
    async with asyncio.timeout(10):
        while hearing:
            await asyncio.sleep(0)
    assert ear.heard == b"".join(pieces)
    assert hearing.has_room


@pytest.fixture
def node(tmp_path: Path) -> MemoryNode:
    """A node that two tenants have keys for, with an entry of each; one of them has a rate."""
    memory = MemoryNode()
    for tenant in ("acme", "zeta"):
        memory.keep(f"{tenant}/users:1", b"one")
    file = write_keys(tmp_path / "keys", [ACME, ZETA])
    memory.config = replace(
        memory.config,
        access=AccessConfig(keys_file=str(file), reload_period_s=3600.0),
        tenants={"acme": TenantConfig(rate=1, burst=100)},
    )
    return memory


def lines(running: Running) -> dict[str, Connection]:
    """A door's connections, by their tenants."""
    return {each.caller.identity.tenant: each for each in running.door._connections if each.caller}


def test_a_deep_pipeline_leaves_the_loop_to_others(node: MemoryNode) -> None:
    """Who comes after it is answered before it has been, and it is answered in the end."""
    node.config = replace(node.config, tenants={})
    running = Running(resp_config(turn_s=0.00001), node, Guard(node.config))
    with running, running.client() as flood, running.client() as calm:
        assert flood.ask("AUTH", ACME.key) == calm.ask("AUTH", ZETA.key) == b"OK"

        def both() -> tuple[bool, int]:
            connections = lines(running)
            connections["acme"].data_received(GET * 3000)
            before = node.hits
            connections["zeta"].data_received(GET)
            return bool(connections["acme"]._hearing), node.hits - before

        assert running.do(both) == (True, 1)
        assert calm.reply() == b"one"
        assert flood.replies(3000) == [b"one"] * 3000


def test_nothing_is_kept_of_whom_nothing_more_is_heard(node: MemoryNode) -> None:
    """He has been told that he breaks the protocol, and may read that while he sends on, out of turn."""
    running = Running(resp_config(turn_s=0.00001), node, Guard(node.config))
    with running, running.client() as calm, running.client() as stranger:
        assert calm.ask("AUTH", ZETA.key) == b"OK"
        assert "NOAUTH" in str(stranger.ask("PING"))
        (line,) = [each for each in running.door._connections if each.caller is None]

        def kept() -> bool:
            line.data_received(b"*-5\r\n")
            assert line._hearing is not None
            line._hearing.share.rest(60.0)
            line.data_received(b"x" * 1_000_000)
            return bool(line._hearing)

        assert not running.do(kept)
        assert "Protocol error" in str(stranger.reply())


def test_slow_commands_take_no_more_than_a_turn_either(node: MemoryNode) -> None:
    """What has been parsed waits for its turn as well."""
    node.config = replace(node.config, tenants={})
    running = Running(resp_config(turn_s=0.00001), node, Guard(node.config))
    with running, running.client() as flood, running.client() as calm:
        assert flood.ask("AUTH", ACME.key) == calm.ask("AUTH", ZETA.key) == b"OK"
        counts = running.door.counts

        def executed() -> int:
            before = counts.commands
            lines(running)["acme"].data_received(command("ECHO", "x") * 100)
            return counts.commands - before

        assert running.do(executed) < 100
        assert flood.replies(100) == [b"x"] * 100


def test_a_tenant_beyond_its_rate_rests_with_all_its_connections(node: MemoryNode) -> None:
    """Nothing of another connection is executed meanwhile, and it is refused afterwards."""
    running = Running(resp_config(turn_s=1.0), node, Guard(node.config))
    with running, running.client() as one, running.client() as calm:
        assert one.ask("AUTH", ACME.key) == calm.ask("AUTH", ZETA.key) == b"OK"
        (first,) = [line for tenant, line in lines(running).items() if tenant == "acme"]
        with running.client() as two:
            assert two.ask("AUTH", ACME.key) == b"OK"
            (second,) = {
                line
                for line in running.door._connections
                if line is not first and line is not lines(running)["zeta"]
            }

            def both() -> tuple[int, bool]:
                first.data_received(GET * 101)
                second.data_received(GET)
                return node.hits, bool(second._hearing)

            assert running.do(both) == (100, True)
            assert [one.reply() for _ in range(100)] == [b"one"] * 100
            assert str(one.reply()).startswith("OVERLOADED")
            assert calm.ask("GET", "users:1") == b"one"
            assert str(two.reply()).startswith("OVERLOADED")
