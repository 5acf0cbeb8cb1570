"""How often each cache was asked for, and what came of it, as operators see it."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.access.guard import Guard
from cluster.config import AccessConfig
from cluster.memory.tallies import Tallies
from cluster.requests import STRONG, Source, State
from cluster.watching.log import KEY_BYTES
from doors import MemoryNode, Running, command, resp_config
from http_doors import Meter, idle_node, sources_of
from keys import holder, write_keys
from nodes import captured, config, read, running
from places import configs, members, owned

SMALL = resp_config(write_buffer_bytes=4096)


def keep(node: MemoryNode, cache: str, number: int, value: bytes = b"v") -> str:
    """An entry of any cache: its key."""
    key = f"{cache}:{number}"
    node.keep(key, value).tally = node.store.tallies[cache]
    return key


async def never(*_: object) -> bool:
    """What is waited for does not come."""
    return await asyncio.Future()


@pytest.mark.parametrize("asked", [("a",), ("a", "a", "b"), ("a", "b", "a", "b", "b"), ("b",) * 20 + ("a",)])
def test_each_hit_is_counted_by_its_cache(asked: tuple[str, ...]) -> None:
    """Alone, in pipelines that mix caches, and when a hit is followed by what is none."""
    with Running() as running_door, running_door.client() as client:
        node = running_door.node
        keys = [keep(node, cache, number) for number, cache in enumerate(asked)]
        client.send(b"".join(command("GET", key) for key in keys))
        assert client.replies(len(keys)) == [b"v"] * len(keys)
        client.send(b"".join(command("GET", key) for key in keys) + command("PING"))
        assert client.replies(len(keys) + 1)[-1] == b"PONG"
        assert {cache: node.store.tallies[cache].hits for cache in set(asked)} == {
            cache: 2 * asked.count(cache) for cache in set(asked)
        }


def test_hits_whose_replies_are_too_large_for_the_hit_path_are_counted_once() -> None:
    """They are asked for again, one after the other."""
    with Running(SMALL) as running_door, running_door.client() as client:
        node = running_door.node
        keys = [keep(node, cache, 1, b"v" * 3000) for cache in "ab"]
        client.send(b"".join(command("GET", key) for key in keys))
        assert client.replies(2) == [b"v" * 3000] * 2
        assert [node.store.tallies[cache].hits for cache in "ab"] == [1, 1]


def test_every_request_of_the_door_is_counted_once() -> None:
    """Whether its answer took the hit path or not; `INFO` says the same as the metrics."""
    with Running() as running_door, running_door.client() as client:
        shown = idle_node()
        shown.store.tallies = running_door.node.store.tallies
        meter = Meter(sources_of(shown, resp=running_door.door.counts))
        running_door.node.keep("users:1", b"v")
        for words in (("GET", "users:1"), ("SNAP.GET", "users:1"), ("GET", "users:2"), ("PING",)):
            client.ask(*words)
        client.send(command("GET", "users:1") * 5)
        client.replies(5)
        assert meter.value("door_requests_total", door="resp") == 9
        assert b"commands:10\r\n" in bytes(client.ask("INFO", "clients"))  # type: ignore[call-overload]


async def test_a_read_is_a_lookup_a_hit_or_a_miss_of_its_cache(database: str) -> None:
    """Never both: one that memory answers once the feed has caught up is a hit. INFO says the same as the metrics."""
    async with captured(database), running(config(database)) as node:
        meter = Meter(sources_of(node))
        await read(node, "user:1")
        for _ in range(20):
            assert (await read(node, "user:1", STRONG)).source is Source.LOCAL
        assert meter.value("lookups_total", cache="user") == 21 == meter.value("lookups_total")
        assert meter.value("hits_total", cache="user", source="local", state="FRESH") == 20
        assert meter.value("misses_total", cache="user") == 1
        said = node.describe()
        assert (said["reads"]["hits"], said["reads"]["misses"]) == (20, 1)
        assert said["reads"]["hit_ratio"] == round(20 / 21, 6)
        assert "lookups=21,hits=20,misses=1," in str(said["caches"]["user"])
        assert "lookups=0,hits=0,misses=0," in str(said["caches"]["headcount"])


async def test_a_read_that_is_given_up_while_the_feed_catches_up_is_a_miss(database: str) -> None:
    """Nothing that was asked for is left out of the lookups."""
    async with captured(database), running(config(database)) as node:
        await read(node, "user:1")
        node.feed.until = never  # type: ignore[method-assign]
        reading = asyncio.create_task(read(node, "user:1", STRONG))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        tally = node.store.tallies["user"]
        assert (tally.lookups, tally.hits, tally.misses) == (2, 0, 2)


async def test_counts_outlive_what_was_in_memory(database: str) -> None:
    """A node that empties its memory has answered what it has answered."""
    async with captured(database), running(config(database)) as node:
        for _ in range(2):
            await read(node, "user:1")
        node.store.clear()
        await read(node, "user:1")
        tally = node.store.tallies["user"]
        assert (tally.lookups, tally.hits, tally.misses) == (3, 1, 2)


async def test_a_call_that_an_open_breaker_forbids_is_skipped_once(database: str) -> None:
    """A plain read looks at the breaker twice, before it goes on without its owner."""
    async with captured(database), members(configs(database, 2)) as (here, there):
        key = owned(here, there.name)
        for at in range(20):
            here.reads.breakers.failed(there.name, "broken", since_s=1e9 + at)
        before = here.reads.breakers.skipped
        assert here.reads.forward(key.encode()) is None
        await here.read(key)
        assert here.reads.breakers.skipped - before == 1


async def test_what_tenants_have_in_memory_is_told_where_they_are_told_apart(database: str) -> None:
    """In the status, which is for administrators; no metric names one."""
    apart = AccessConfig(keys_file="read by doors, not by the node")
    async with captured(database), running(config(database, access=apart)) as node:
        await read(node, "acme/user:1")
        assert str(node.describe()["tenants"]["acme"]).startswith("entries=1,bytes=")
        assert "acme" not in Meter(sources_of(node)).text()


async def test_who_comes_in_and_who_does_not_is_counted(tmp_path: Path) -> None:
    """Keys that were shown, and files that changed; without the name of anybody."""
    holder_ = holder("billing", "acme", "read")
    keys = write_keys(tmp_path / "keys", [holder_])
    node = idle_node()
    guard = Guard(replace(node.config, access=AccessConfig(keys_file=str(keys))))
    assert guard.gate is not None
    meter = Meter(sources_of(node, guard=guard))
    guard.gate.authenticate(holder_.key.encode())
    guard.gate.authenticate(b"snapring_billing_wrong")
    logins = [meter.value("logins_total", outcome=outcome) for outcome in ("accepted", "rejected")]
    assert (logins, meter.value("credentials")) == ([1, 1], 1)
    assert meter.value("quota_refusals_total") == meter.value("file_changes_total", outcome="broken") == 0
    assert not any(word in meter.text() for word in ("billing", "acme"))


def test_what_is_remembered_for_watchers_shows() -> None:
    """Nothing before somebody watches."""
    node = idle_node()
    meter = Meter(sources_of(node))
    assert node.describe()["watching"] == {
        "subscriptions": 0, "recording": 0, "log_keys": 0, "log_bytes": 0
    }  # fmt: skip
    subscription = node.watching.subscribe()
    node.watching.left(b"user:1")
    size = KEY_BYTES + len(b"user:1")
    assert (meter.value("watch_subscriptions"), meter.value("watch_log_bytes")) == (1, size)
    subscription.close()
    assert node.describe()["watching"] == {
        "subscriptions": 0, "recording": 1, "log_keys": 1, "log_bytes": size
    }  # fmt: skip


def test_stale_answers_of_others_are_told_apart() -> None:
    """By who gave them."""
    tallies = Tallies()
    for source, state in (
        (Source.PEER, State.FRESH),
        (Source.PEER, State.STALE),
        (Source.BACKUP, State.STALE),
    ):
        tallies["user"].answered(source, state)
    told = {each: count for each, count in tallies["user"].answers().items() if count}
    assert told == {
        (Source.PEER, State.FRESH): 1,
        (Source.PEER, State.STALE): 1,
        (Source.BACKUP, State.STALE): 1,
    }
