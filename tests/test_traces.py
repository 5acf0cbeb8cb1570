"""One trace from the door to the owner and to Postgres: whose child each span is, and what it tells."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from time import monotonic

import grpc.aio
import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from cluster.config import CacheConfig, PeersConfig
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from cluster.doors.resp import RespDoor
from cluster.peering.traced_answering import TracedAnswering
from doors import resp_config
from grpc_doors import Here, failure, serving
from nodes import CACHES, captured, config, read, running
from places import Place, configs, members, owned
from snapring.keys import parse
from traces import PARENT, TRACE, Kept, events, told

PAGES = CacheConfig(name="pages", kind="store")
OTHER = f"00-{'ab' * 16}-00f067aa0ba902b7-01"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Three nodes whose spans are kept, and a client of the first, which is asked for everything."""

    kept: Kept
    places: list[Place]
    client: Redis

    async def ask(self, *words: str, parent: str = PARENT) -> object:
        """The reply to a command that is part of a trace."""
        return await self.client.execute_command("SNAP.TRACE", parent, *words)

    def key(self, owner: int, backup: int | None = None) -> str:
        """A key that the node of that number owns."""
        names = [place.name for place in self.places]
        return owned(self.places[0], names[owner], None if backup is None else names[backup])


@asynccontextmanager
async def nodes(database: str, *, room: int = 32) -> AsyncIterator[Cluster]:
    """See `Cluster`; ``room`` is that of the first node."""
    kept = Kept()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(captured(database))
        settings = configs(database, 3, caches=(*CACHES, PAGES))
        places = await stack.enter_async_context(
            members(
                settings,
                peers=PeersConfig(hop_timeout_s=1.0),
                before=lambda name, handler: TracedAnswering(handler, kept.tracing(name)),
            )
        )
        tracing = kept.tracing(places[0].name, room=room)
        door = RespDoor(places[0].reads, resp_config(), tracing=tracing)
        await door.start()
        stack.push_async_callback(door.drain, monotonic())
        yield Cluster(kept, places, await stack.enter_async_context(Redis(port=door.port, protocol=3)))


@pytest.fixture
async def cluster(database: str) -> AsyncIterator[Cluster]:
    """With room for every span."""
    async with nodes(database) as made:
        yield made


async def test_one_trace_from_the_asked_node_to_the_owner_to_postgres(cluster: Cluster) -> None:
    """Each span is the child of what caused it, and all are of the client's trace, whoever made them."""
    assert await cluster.ask("GET", cluster.key(1))
    spans, (asked, owner) = cluster.kept.spans, [place.name for place in cluster.places[:2]]
    assert cluster.kept.lines() == [
        "GET user",
        "GET user > GET user",
        "GET user > GET user > GET user",
        "GET user > GET user > GET user > SELECT user",
    ]
    assert {format(span.context.trace_id, "032x") for span in spans} == {TRACE}
    assert format(spans[-1].parent.span_id, "016x") == PARENT.split("-")[2]
    assert [(span.kind.name, span.instrumentation_scope.name) for span in spans] == [
        ("CLIENT", owner),
        ("SERVER", owner),
        ("CLIENT", asked),
        ("SERVER", asked),
    ]


async def test_spans_tell_how_the_answer_was_found(cluster: Cluster) -> None:
    """At the door, on the hop, at the owner, and of the database where it is and what was asked of it."""
    await cluster.ask("SNAP.GET", cluster.key(1))
    load, owner, hop, asked = map(told, cluster.kept.spans)
    assert load == {
        "db.system.name": "postgresql",
        "db.namespace": "app",
        "server.address": "db.example",
        "server.port": 5433,
        "db.query.summary": "SELECT user",
        "db.operation.name": "SELECT",
    }
    assert hop == {
        "snapring.cache": "user",
        "snapring.peer": cluster.places[1].name,
        "snapring.asked": "peer",
    }
    assert [asked.pop("snapring.age_ms") >= 0, owner.pop("snapring.age_ms") >= 0] == [True, True]
    common = {"snapring.cache": "user", "snapring.hit": False, "snapring.state": "FRESH"}
    assert (owner, asked) == (common, {**common, "snapring.source": "peer"})


async def test_a_hit_is_one_span(cluster: Cluster) -> None:
    """Out of memory here, and out of the owner's."""
    here, there = cluster.key(0), cluster.key(1)
    await cluster.client.mget(here, there)
    await cluster.ask("GET", here)
    assert told(cluster.kept.one("GET user"))["snapring.source"] == "local"
    await cluster.ask("GET", there)
    _, owner, _, _ = cluster.kept.spans
    assert [told(owner)[f"snapring.{name}"] for name in ("hit", "source")] == [True, "local"]


async def test_misses_that_load_together_have_a_span_in_each_trace(database: str) -> None:
    """The batch's times, and its size: whichever of the traces is looked at shows where the time went."""
    kept = Kept()
    async with captured(database), running(config(database)) as node:

        async def ask(key: str, parent: str) -> None:
            traced = kept.tracing().asked("GET", parent)
            assert traced is not None
            with traced.whole():
                await read(node, key)

        await asyncio.gather(ask("user:1", PARENT), ask("user:2", OTHER), read(node, "user:3"))
    loads = [span for span in kept.spans if span.name == "SELECT user"]
    assert [told(span)["db.operation.batch.size"] for span in loads] == [3, 3]
    asked = {span.context.span_id: span.context.trace_id for span in kept.spans if span.name == "GET"}
    assert [asked[span.parent.span_id] for span in loads] == [span.context.trace_id for span in loads]
    assert len({span.context.trace_id for span in loads}) == 2


async def test_a_request_of_many_keys_has_one_span_for_each_round_trip(cluster: Cluster) -> None:
    """However many of its misses are in it; and counts what memory had."""
    keys = [owned(cluster.places[0], cluster.places[0].name, first=first) for first in (1, 100, 200, 300)]
    await cluster.client.get(keys[0])
    await cluster.ask("MGET", *keys)
    asked = told(cluster.kept.one("MGET user"))
    assert (asked["snapring.reads"], asked["snapring.hits"], asked["snapring.hit"]) == (4, 1, False)
    loads = [told(span) for span in cluster.kept.spans if span.name == "SELECT user"]
    assert sum(load.get("db.operation.batch.size", 1) for load in loads) == 3
    assert len(loads) < 3


async def test_a_request_has_no_more_spans_than_it_may(database: str) -> None:
    """What is beyond them is answered all the same, and nobody else makes spans for it."""
    async with nodes(database, room=1) as cluster:
        names = [place.name for place in cluster.places]
        keys = [owned(cluster.places[0], names[owner], first=first) for owner in (1, 2) for first in (1, 99)]
        values = await cluster.ask("MGET", *keys)
        assert isinstance(values, list)
        assert [value is None for value in values] == [int(key.split(":")[1]) > 30 for key in keys]
        assert [span.instrumentation_scope.name for span in cluster.kept.spans].count(names[0]) == 2
        assert sum(span.kind.name == "SERVER" for span in cluster.kept.spans) == 2


async def test_a_write_shows_its_round_trip(cluster: Cluster) -> None:
    """Whatever keys it has: what is told of the database is one operation."""
    assert await cluster.ask("SET", "pages:secret", "secret") in (b"OK", True)
    assert cluster.kept.lines() == ["SET pages", "SET pages > WRITE"]


async def test_who_waits_for_the_load_of_another_says_so(database: str) -> None:
    """The first begins the flight, the second joins it."""
    kept = Kept()
    async with captured(database), running(config(database)) as node:
        traces = [kept.tracing().asked("GET", parent) for parent in (PARENT, OTHER)]

        async def ask(number: int) -> None:
            traced = traces[number]
            assert traced is not None
            with traced.whole():
                await read(node, "user:1")

        await asyncio.gather(ask(0), ask(1))
    assert sorted(events(span) for span in kept.spans if span.name == "GET") == [
        [],
        ["snapring.flight_joined"],
    ]


async def test_the_backup_is_asked_in_a_span_of_its_own(cluster: Cluster) -> None:
    """After the owner's, which says how it failed."""
    key = cluster.key(1, backup=2)
    await cluster.places[1].service.stop(0.0)
    assert await cluster.ask("GET", key)
    hops = [span for span in cluster.kept.spans if "snapring.asked" in told(span)]
    assert [told(hop)["snapring.asked"] for hop in hops] == ["peer", "backup"]
    assert [hop.status.is_ok for hop in hops] == [False, True]
    assert told(hops[0])["error.type"]


async def test_an_open_breaker_is_told_of(database: str) -> None:
    """Postgres is not asked, and the request shows why."""
    kept = Kept()
    async with captured(database), running(config(database)) as node:
        for _ in range(3):
            node.breaker.failed("for a test")
        traced = kept.tracing().asked("GET", PARENT)
        assert traced is not None
        with pytest.raises(Exception, match="out of reach"), traced.whole():
            await read(node, "user:1")
    assert "snapring.breaker_open" in events(kept.one("GET"))
    assert told(kept.one("GET"))["error.type"] == "UNAVAILABLE"


async def test_spans_hold_nothing_that_was_asked_or_answered(cluster: Cluster) -> None:
    """No key, no value, no argument, no text of an error; caches only that there are, and no tenants."""
    marks = ["argument-x", "value-x", "nocache-x", "tenant-x", "token-x"]
    for words in (
        ["GET", "user:argument-x"],
        ["GET", "nocache-x:argument-x"],
        ["GET", "tenant-x/user:1"],
        ["MGET", "members:argument-x", "user:argument-x"],
        ["SNAP.GET", "user:1", "ATLEAST", "token-x"],
        ["SET", "pages:argument-x", "value-x"],
        ["SET", "user:argument-x", "value-x"],
        ["SNAP.KEYS", "pages:argument-x"],
        ["argument-x", "value-x"],
    ):
        try:
            await cluster.ask(*words)
        except ResponseError:
            continue
    assert len(cluster.kept.spans) > 8
    everything = "".join(span.to_json() for span in cluster.kept.spans)
    assert [mark for mark in [*marks, "very-secret", "someone"] if mark in everything] == []
    assert '"error.type": "ARGUMENT_INVALID"' in everything


async def test_a_tenant_is_named_only_where_the_configuration_says_so(cluster: Cluster) -> None:
    """Whoever sees the traces need not see whose they are."""
    for tenants in (False, True):
        traced = cluster.kept.tracing(tenants=tenants).asked("GET", PARENT)
        assert traced is not None
        traced.about(parse(b"acme/user:1")[0])
        traced.end()
    assert [told(span).get("snapring.tenant") for span in cluster.kept.spans] == [None, "acme"]


async def test_a_traced_and_an_untraced_read_are_answered_alike(cluster: Cluster) -> None:
    """The reply is the command's own, errors included."""
    for words in (["GET", cluster.key(0)], ["MGET", cluster.key(1), cluster.key(2)], ["ECHO", "hello"]):
        assert await cluster.ask(*words) == await cluster.client.execute_command(*words)
    for words in (["EXISTS", cluster.key(0)], ["DBSIZE"], ["SNAP.KEYS", "user:", "COUNT", "9"]):
        traced, untraced = await cluster.ask(*words), await cluster.client.execute_command(*words)
        assert str(traced)[:20] == str(untraced)[:20] != "0"
    refusals = []
    for asking in (cluster.ask, cluster.client.execute_command):
        with pytest.raises(ResponseError) as refused:
            await asking("GET", "user:x")
        refusals.append(str(refused.value))
    assert refusals[0] == refusals[1]


@pytest.fixture
async def calling(database: str) -> AsyncIterator[tuple[Kept, Here]]:
    """A gRPC door whose spans are kept."""
    kept = Kept()
    async with (
        captured(database),
        running(config(database)) as node,
        serving(node, node, node.watching, tracing=kept.tracing()) as here,
    ):
        yield kept, here


async def test_a_grpc_call_is_part_of_the_trace_in_its_metadata(calling: tuple[Kept, Here]) -> None:
    """Named as its method is; tracestate goes along."""
    kept, here = calling
    here.metadata = (("traceparent", PARENT), ("tracestate", "vendor=opaque"))
    assert (await here.Get(key="user:1")).value
    asked = await kept.ended("snapring.v1.Snapring/Get user")
    load, _ = kept.spans
    assert kept.lines() == ["snapring.v1.Snapring/Get user", "snapring.v1.Snapring/Get user > SELECT user"]
    assert told(asked)["rpc.method"] == "snapring.v1.Snapring/Get"
    assert [span.context.trace_state.to_header() for span in (load, asked)] == ["vendor=opaque"] * 2
    await here.Get(key="user:1")
    hit = await kept.ended("snapring.v1.Snapring/Get user", 2)
    assert [told(hit)[f"snapring.{name}"] for name in ("hit", "source")] == [True, "local"]


async def test_grpc_calls_of_many_keys_and_failures_are_told_of(calling: tuple[Kept, Here]) -> None:
    """What was wrong is its code."""
    kept, here = calling
    here.metadata = (("traceparent", PARENT),)
    await here.GetMany(keys=["user:1", "user:2"], one_snapshot=True)
    many = await kept.ended("snapring.v1.Snapring/GetMany user")
    assert told(many)["snapring.reads"] >= 2
    code, reason, _ = await failure(here.Get(key="user:x"))
    failed = await kept.ended("snapring.v1.Snapring/Get user")
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, told(failed)["error.type"])


@pytest.mark.parametrize("parent", [None, PARENT[:-1] + "0", "nonsense"])
async def test_grpc_calls_without_a_sampled_context_are_not_traced(
    calling: tuple[Kept, Here], parent: str | None
) -> None:
    """They are answered as ever."""
    kept, here = calling
    here.metadata = (("traceparent", parent),) if parent else ()
    assert (await here.Get(key="user:1")).value
    assert kept.spans == ()


async def test_a_context_too_long_for_peers_is_no_message_that_they_refuse(database: str) -> None:
    """It would end the connection, and every call on it with it. What is too long of it is left out."""
    async with nodes(database) as cluster:
        asked = cluster.places[0]
        kept = cluster.kept.tracing(asked.name)
        state = ",".join(f"vendor{number}={'x' * 250}" for number in range(4))
        async with serving(asked.reads, asked.node, asked.node.watching, tracing=kept) as here:
            here.metadata = (("traceparent", PARENT), ("tracestate", state))
            assert (await here.Get(key=cluster.key(1))).source == v1.SOURCE_PEER
        (owner,) = [span for span in cluster.kept.spans if "snapring.asked" in told(span)]
        assert owner.status.is_ok
