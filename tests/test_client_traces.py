"""The Python client's spans: opt in, one trace with the nodes', and light where nobody asks."""

import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from cluster.doors.resp import RespDoor
from door_nodes import COLOURS, PAGES, Colour
from doors import command, resp_config
from nodes import CACHES, captured, config, running
from snapring import AsyncClient, Client, Put, SnapringError
from snapring.traces import traced
from traces import PARENT, Kept, told


@dataclass(frozen=True, slots=True)
class Served:
    """A node whose spans are kept, and where it is."""

    kept: Kept
    address: str
    door: RespDoor


@pytest.fixture
async def served(database: str) -> AsyncIterator[Served]:
    """A node by itself."""
    kept = Kept()
    async with captured(database), running(config(database, (*CACHES, PAGES))) as node:
        door = RespDoor(node, resp_config(), near=node, watching=node.watching, tracing=kept.tracing())
        await door.start()
        yield Served(kept, f"127.0.0.1:{door.port}", door)
        await door.drain(0.0)


@COLOURS
async def test_one_trace_from_the_client_to_postgres(served: Served, colour: Colour) -> None:
    """The node's span is the child of the call's, which tells what the reply said."""
    async with colour(served.address, traces=served.kept.provider, routed=False) as client:
        reply = await client.get("user:1")
    assert reply.value["name"] == "user 1"
    assert served.kept.lines() == [
        "GET user",
        "GET user > SNAP.GET user",
        "GET user > SNAP.GET user > SELECT user",
    ]
    assert len({span.context.trace_id for span in served.kept.spans}) == 1
    asked = served.kept.one("GET user")
    found = told(asked)
    assert (asked.kind.name, found.pop("server.port"), found.pop("snapring.age_ms")) == (
        "CLIENT", int(served.address.split(":")[1]), round(reply.age_s * 1000)
    )  # fmt: skip
    assert found == {
        "db.system.name": "snapring",
        "db.operation.name": "GET",
        "db.collection.name": "user",
        "server.address": "127.0.0.1",
        "snapring.state": "FRESH",
        "snapring.source": "load",
    }


@COLOURS
async def test_every_call_is_a_span(served: Served, colour: Colour) -> None:
    """Sessions' calls too; of many keys it tells how many."""
    async with colour(served.address, traces=served.kept.provider) as client:
        with client.session():
            await client.put("pages:a", b"1")
            await client.get_many(["pages:a", "pages:b"])
            await client.get_many(["pages:a", "user:1"], one_snapshot=False)
            await client.delete("pages:a")
        await client.write([Put("pages:b", b"2")])
        await client.token(strong=True)
        await client.keys("pages:")
        await client.browse("user:")
    calls = [span for span in served.kept.spans if span.instrumentation_scope.name == "snapring"]
    assert [span.name for span in calls] == [
        "WRITE pages", "GET pages", "GET", "WRITE pages", "WRITE pages", "TOKEN", "KEYS pages", "BROWSE user"
    ]  # fmt: skip
    assert [told(span).get("db.operation.batch.size") for span in calls[:3]] == [None, 2, 2]
    by_call = {span.context.trace_id for span in calls}
    assert {span.context.trace_id for span in served.kept.spans} == by_call
    assert len(by_call) == len(calls)
    assert "BROWSE user > SNAP.KEYS" in served.kept.lines()


async def test_a_memoised_call_holds_what_it_reads_and_computes(served: Served) -> None:
    """As children of its span, with those of the function's own reads."""
    async with AsyncClient(served.address, traces=served.kept.provider) as client:

        @client.cached("pages", name="card")
        async def card(number: int) -> str:
            return str((await client.get(f"user:{number}")).value["name"])

        assert await card(1) == "user 1"
    lines = served.kept.lines()
    assert "CACHED pages > GET user > SNAP.GET user > SELECT user" in lines
    assert all(line.startswith("CACHED pages") for line in lines)
    assert told(served.kept.one("CACHED pages"))["code.function.name"] == "card"


@COLOURS
async def test_what_is_not_sampled_is_sent_as_ever(served: Served, colour: Colour) -> None:
    """So hits stay on the node's hit path."""
    unsampled = Kept(ALWAYS_OFF)
    async with colour(served.address, traces=unsampled.provider) as client:
        await client.get("user:1")
        commands = served.door.counts.commands
        assert (await client.get("user:1")).value["name"] == "user 1"
    assert (unsampled.spans, served.kept.spans, served.door.counts.commands) == ((), (), commands)


@COLOURS
async def test_who_owns_what_is_asked_outside_of_traces(served: Served, colour: Colour) -> None:
    """A client's first call has the spans of any other, also where nobody shares the slots."""
    async with colour(served.address, traces=served.kept.provider) as client:
        await client.get("user:1")
    assert served.kept.lines() == [
        "GET user",
        "GET user > SNAP.GET user",
        "GET user > SNAP.GET user > SELECT user",
    ]
    assert not [event for span in served.kept.spans for event in span.events]
    assert served.door.counts.errors == 0


@COLOURS
async def test_an_attempt_that_failed_is_an_event(served: Served, colour: Colour) -> None:
    """Where it was, and why; what came of the call is the span's."""
    async with colour(["127.0.0.1:1", served.address], traces=served.kept.provider, routed=False) as client:
        for _ in range(4):
            assert (await client.get("user:1")).value["name"] == "user 1"
    calls = [span for span in served.kept.spans if span.name == "GET user"]
    failed = [event for span in calls for event in span.events]
    assert {event.name for event in failed} == {"snapring.attempt_failed"}
    assert dict(failed[0].attributes) == {
        "server.address": "127.0.0.1", "server.port": 1, "error.type": "connection"
    }  # fmt: skip
    assert all(span.status.is_unset for span in calls)


@COLOURS
async def test_spans_hold_nothing_that_was_asked_or_answered(served: Served, colour: Colour) -> None:
    """No key, no value, no credential, no text of an error."""
    async with colour(served.address, traces=served.kept.provider) as client:
        await client.put("pages:argument-x", b"value-x")
        await client.get("pages:argument-x")
        for key, token in (("user:argument-x", None), ("user:1", "token-x"), ("argument x", None)):
            with pytest.raises(SnapringError):
                await client.get(key, at_least=token)
    everything = "".join(span.to_json() for span in served.kept.spans)
    assert [mark for mark in ("argument", "value-x", "token-x") if mark in everything] == []
    assert '"error.type": "TOKEN_INVALID"' in everything


def test_without_the_extra_a_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only if it was told to trace."""
    for name in ("opentelemetry", "opentelemetry.trace"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "snapring.traces")
    with pytest.raises(SnapringError, match=r"pip install 'snapring\[otel\]'"):
        Client(traces=True)
    Client().close()


def test_spans_are_not_imported_unless_asked_for() -> None:
    """The client stays light; what redis-py does of its own is its own."""
    look = "import snapring, sys; snapring.Client().close(); snapring.AsyncClient; print('snapring.traces' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-P", "-c", look], text=True).strip() == "False"


WORDS = st.lists(st.binary(max_size=40), min_size=1, max_size=5)


@given(st.lists(WORDS, min_size=1, max_size=4))
def test_each_command_of_a_pipeline_is_part_of_the_trace(pipeline: list[list[bytes]]) -> None:
    """Whatever bytes its words are."""
    payload = b"".join(command(*words) for words in pipeline)
    assert traced(payload, PARENT.encode()) == b"".join(
        command("SNAP.TRACE", PARENT, *words) for words in pipeline
    )
