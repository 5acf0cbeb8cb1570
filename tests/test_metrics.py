"""What Prometheus reads of a node: every metric moves when what it counts happens."""

import asyncio
import re
from math import isinf
from time import monotonic

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from cluster.config import CacheConfig, FeedConfig, RespConfig
from cluster.distribution import SIZES, Distribution
from cluster.doors.resp import RespDoor
from cluster.doors.sampling import Sampling
from cluster.readiness import Readiness, follows
from cluster.requests import STRONG
from cluster.writes import Deed
from grpc_doors import eventually, in_memory
from http_doors import Meter, idle_node, sources_of
from nodes import CACHES, WITHIN_S, captured, caught_up, config, read, running, until
from servers import Server
from snapring.errors import SnapringError
from snapring.keys import parse
from test_sharing import cluster, keys_of, named

LABELS = {"cache", "source", "state", "reason", "outcome", "kind", "to", "door", "le", "version", "node"}
"""What tells samples apart: nothing that a client can make up."""

SETTINGS = CacheConfig(name="settings", kind="store")


async def test_reads_are_counted_by_where_their_answer_came_from(database: str) -> None:
    """A miss, a hit, and one more once the feed had caught up: three lookups."""
    async with captured(database), running(config(database)) as node:
        meter = Meter(sources_of(node))
        moved = meter.since()
        for asked in ("user:1", "user:1"):
            await read(node, asked)
        await read(node, "user:1", STRONG)
        assert (moved("lookups_total"), moved("misses_total")) == (3, 1)
        assert moved("hits_total", source="local", state="FRESH") == 2
        with pytest.raises(SnapringError):
            await read(node, "user:nobody")
        assert moved("read_errors_total") + moved("load_failures_total") >= 1


async def test_a_load_is_timed_and_its_batch_measured(database: str) -> None:
    """By cache; what waits together goes together, and who joins a load is counted."""
    async with captured(database), running(config(database)) as node:
        meter = Meter(sources_of(node))
        moved = meter.since()
        await asyncio.gather(*(read(node, f"user:{n}") for n in (1, 1, 2, 3)))
        assert moved("load_seconds_count", cache="user") == 3
        assert 0 < moved("load_seconds_sum", cache="user") < WITHIN_S
        assert moved("load_batch_size_sum") == 3
        assert 1 <= moved("load_batch_size_count") <= 3
        assert moved("flight_waits_total") == 1
        assert meter.value("cache_entries", cache="user") == 3
        assert meter.value("cache_bytes", cache="user") == meter.value("memory_used_bytes") > 0
        assert moved("admissions_total", outcome="open") == 3


async def test_a_change_is_counted_and_so_is_what_it_ended(database: str) -> None:
    """And how far the watermark was behind."""
    slow = FeedConfig(poll_period_s=WITHIN_S)
    async with captured(database) as writer, running(config(database, feed=slow)) as node:
        meter = Meter(sources_of(node))
        await read(node, "user:1")
        moved = meter.since()
        for name in ("one", "two", "three"):
            await writer.execute("UPDATE users SET name = %s WHERE id = 1", (name,))
        await caught_up(node)
        assert meter.value("feed_lag_snapshots") == 3
        assert moved("invalidations_total") == moved("removals_total", reason="ended") == 1
        assert moved("changes_applied_total") >= 3
        assert moved("feed_polls_total") >= 1
        assert meter.value("feed_lag_seconds") < WITHIN_S


async def test_ddl_voids_everything(database: str) -> None:
    """Then entries are cleared, not ended."""
    async with captured(database) as writer, running(config(database)) as node:
        await read(node, "user:1")
        moved = Meter(sources_of(node)).since()
        await writer.execute("ALTER TABLE users ADD COLUMN more int")
        await until(lambda: node.feed.voided > 1)
        assert (moved("voids_total"), moved("removals_total", reason="cleared")) == (1, 1)


async def test_who_leaves_memory_is_counted_by_the_reason(database: str) -> None:
    """A store too small for two large values, and one too large for it."""
    cache = CacheConfig(name="wide", sql="SELECT repeat('x', $1::int) AS x", single=True, max_bytes=65_536)
    async with captured(database), running(config(database, (*CACHES, cache))) as node:
        moved = Meter(sources_of(node)).since()
        for size in (40_000, 40_001, 200_000):
            await read(node, f"wide:{size}")
        assert (moved("removals_total", reason="evicted"), moved("removals_total", reason="too_large")) == (
            1,
            1,
        )
        assert moved("admissions_total", outcome="too_large") == 1


async def test_writes_are_counted_by_their_outcome(database: str) -> None:
    """Of store caches."""
    async with captured(database), running(config(database, (*CACHES, SETTINGS))) as node:
        moved = Meter(sources_of(node)).since()
        key, _ = parse(b"settings:theme")
        await node.write([Deed(key=key, value=b"dark")], monotonic() + WITHIN_S)
        with pytest.raises(SnapringError):
            await node.write([Deed(key=key, value=b"light", if_version=7)], monotonic() + WITHIN_S)
        assert (moved("writes_total", outcome="written"), moved("writes_total", outcome="mismatched")) == (
            1,
            1,
        )


async def test_a_database_that_is_lost_shows_and_leaves_the_node_ready() -> None:
    """The breaker's state and its changes, polls that fail, lag that grows, answers labelled STALE."""
    stale = [
        CacheConfig(
            name="user",
            sql="SELECT id FROM users WHERE id = $1",
            stale_if_error_s=WITHIN_S,
            max_staleness_s=0.03,
        )
    ]
    with Server() as server, server.database() as name:
        async with captured(server.dsn(name)), running(config(server.dsn(name), tuple(stale))) as node:
            readiness = Readiness({"feed": follows(node.timeline, node.feed)})
            meter = Meter(sources_of(node, readiness=readiness))
            await read(node, "user:1")
            moved = meter.since()
            server.kill9()
            await until(lambda: node.breaker.state == "open")
            await until(lambda: monotonic() - node.timeline.watermark_s > 0.1)
            await read(node, "user:1")
            assert moved("stale_served_total") == moved("hits_total", source="local", state="STALE") == 1
            assert moved("feed_poll_failures_total") >= 1
            assert moved("breaker_transitions_total", to="open") >= 1
            assert meter.value("breaker_state", state="closed") == 0
            assert 0.1 < meter.value("feed_lag_seconds") < WITHIN_S
            assert (readiness.wrong(), meter.value("ready")) == ({}, 1)
            server.start()
            await until(lambda: node.breaker.state == "closed")
            assert moved("breaker_transitions_total", to="half-open") >= 1
            assert moved("breaker_transitions_total", to="closed") == 1


def test_a_node_that_never_followed_lags_without_end() -> None:
    """And is not ready."""
    meter = Meter(sources_of(idle_node()))
    assert isinf(meter.value("feed_lag_seconds"))
    assert meter.value("ready") == 0


async def test_what_others_answer_and_hand_over_is_counted(database: str) -> None:
    """Forwarded reads by source, copies by kind, the ring's share, and who disagrees about it."""
    async with cluster(database, count=2) as (zero, one):
        meter, other = (Meter(sources_of(each.node, among=each.among)) for each in (zero, one))
        moved, elsewhere = meter.since(), other.since()
        theirs, own = keys_of(zero, named(1), 3), keys_of(zero, named(0), 1)[0]
        for key in (*theirs, own):
            await zero.read(key)
        assert (moved("lookups_total"), moved("forwarded_total"), moved("misses_total")) == (4, 3, 1)
        assert moved("hits_total", source="peer", state="FRESH") == 3
        assert elsewhere("lookups_total") == 3 == elsewhere("peer_questions_total", outcome="later")
        assert "questions_later" in zero.among.reads.describe()["answering"]
        await eventually(lambda: zero.among.sharing.filled == 1)
        assert moved("handoffs_total", kind="filled") == 1
        await eventually(lambda: elsewhere("handoffs_total", kind="kept") == 1)
        assert meter.value("ring_members") == 2
        assert meter.value("ring_share") + other.value("ring_share") == 1.0
        assert meter.value("ring_disagreeing") == 0
        one.among.membership.mismatch(b"another!")
        assert elsewhere("ring_mismatches_total") == 1


async def test_a_peer_that_is_gone_shows(database: str) -> None:
    """Calls that fail, reads that come back, a breaker that opens; and each is one lookup still."""
    async with cluster(database, count=2) as (zero, one):
        meter = Meter(sources_of(zero.node, among=zero.among))
        theirs = keys_of(zero, named(1), 40)
        moved = meter.since()
        elsewhere = Meter(sources_of(one.node, among=one.among)).since()
        await one.among.service.stop(0.0)
        for key in theirs:
            await zero.read(key)
        assert moved("hops_failed_total") >= 1
        assert moved("lookups_total") == 40 == moved("fallbacks_total") == moved("forwarded_total")
        assert moved("misses_total") == 40
        assert moved("hops_skipped_total") >= 1
        assert elsewhere("peer_questions_total") == 0
        assert (
            moved("peer_breaker_transitions_total", to="open")
            == meter.value("peer_breakers", state="open")
            == 1
        )


async def test_the_next_command_of_a_client_is_timed() -> None:
    """One for each time that somebody asks, be it a hit or a load; what is not asked for costs nothing."""
    async with in_memory() as (node, _):
        door = RespDoor(node, RespConfig(port=0))
        await door.start()
        took: list[float] = []
        door.sample(took.append)  # nobody is there
        async with Redis(port=door.port, protocol=3) as client:
            node.keep("users:1", b"Ada")
            await client.get("users:1")
            write = next(iter(door._connections)).write
            for key in ("users:1", "users:2"):
                door.sample(took.append)
                await client.get(key)
                await client.get(key)
            assert len(took) == 2
            assert all(0 < each < WITHIN_S for each in took)
            assert next(iter(door._connections)).write == write
        await door.drain(monotonic())


async def test_the_latency_of_the_doors_is_sampled() -> None:
    """As often as configured, each door by its name."""
    async with in_memory() as (node, calling):
        sampling = Sampling({"grpc": calling.door}, 0.001)
        meter = Meter(sources_of(idle_node(), sampling=sampling, grpc=calling.door.calls))
        task = asyncio.create_task(sampling.run())
        await asyncio.sleep(0)
        node.keep("users:1", b"Ada")
        await calling.Get(key="users:1")
        assert meter.value("door_latency_seconds_count", door="grpc") == 1
        assert meter.value("door_requests_total", door="grpc") == 1
        task.cancel()


async def test_requests_and_errors_of_the_doors_are_counted() -> None:
    """And who is connected."""
    async with in_memory() as (node, _):
        door = RespDoor(node, RespConfig(port=0))
        await door.start()
        meter = Meter(sources_of(idle_node(), resp=door.counts))
        async with Redis(port=door.port, protocol=3) as client:
            moved = meter.since()
            await client.get("users:1")
            with pytest.raises(Exception, match="unknown command"):
                await client.execute_command("NONSENSE")
            assert (moved("door_requests_total", door="resp"), moved("door_errors_total", door="resp")) >= (
                2,
                1,
            )
            assert meter.value("door_connections", door="resp") == 1
        await door.drain(monotonic())


async def test_names_helps_and_labels_are_as_prometheus_wants_them(database: str) -> None:
    """Both parsers read it, each metric says what it is, and no label has a value that a client can choose."""
    async with cluster(database, count=2) as (zero, _):
        for number in range(20):
            await zero.read(parse(b"user:%d" % number)[0])
        meter = Meter(sources_of(zero.node, among=zero.among, sampling=Sampling({"resp": in_memory}, 1.0)))  # type: ignore[dict-item]
        found = list(text_string_to_metric_families(meter.text()))
        for family in found:
            assert re.fullmatch(r"(snapring|process)_[a-z][a-z0-9_]*", family.name)
            assert family.documentation
            assert {label for sample in family.samples for label in sample.labels} <= LABELS, family.name
            assert not any("user:" in value for sample in family.samples for value in sample.labels.values())
            assert not any(part in family.name for part in ("_ms", "milliseconds", "kib"))
        same = list(openmetrics(meter.text("application/openmetrics-text; version=1.0.0")))
        assert {family.name for family in same} == {family.name.removesuffix("_info") for family in found}
        assert len({family.name for family in found}) == len(found)


def test_a_distribution_counts_what_is_not_above_its_bounds() -> None:
    """Each in every bucket from its own on, the last of which has them all."""
    spread = Distribution(SIZES)
    for size in (1, 2, 3, 5000):
        spread.observe(size)
    below = dict(spread.cumulative())
    assert (below[1], below[2], below[4], below[1024], below[float("inf")]) == (1, 2, 3, 3, 4)
    assert (spread.count, spread.total) == (4, 5006)
