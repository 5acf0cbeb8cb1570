"""What a door traces: sampled contexts of clients that it knows, within a rate, and a share of the rest."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.access.guard import Guard
from cluster.config import AccessConfig, LogConfig
from cluster.doors.lines import Lines
from cluster.tracing.rate import Rate
from cluster.tracing.tracing import Tracing
from doors import MemoryNode, Running, command
from grpc_doors import Memory, failure, in_memory
from keys import holder, write_keys
from traces import PARENT, TRACE, Kept, told

ACME = holder("billing", "acme", "read")


@pytest.fixture
def kept() -> Kept:
    """The spans of a test."""
    return Kept()


Door = Callable[..., Running]


@pytest.fixture
def door() -> Iterator[Door]:
    """A door before a node in memory that traces as it is told to."""
    opened = []

    def open_(tracing: Tracing | None, guard: Guard | None = None) -> Running:
        running = Running(guard=guard, tracing=tracing)
        opened.append(running)
        running.__enter__()
        running.do(lambda: running.node.keep("users:1", b"one"))
        running.node.rows["users:2"] = b"two"
        return running

    yield open_
    for running in opened:
        running.__exit__()


def test_a_trace_is_wanted_by_whoever_sends_a_sampled_context(kept: Kept, door: Door) -> None:
    """Through any Redis library: the reply is that of the command alone."""
    with door(kept.tracing()).client() as client:
        assert client.ask("SNAP.TRACE", PARENT, "GET", "users:1") == b"one"
        assert client.ask("snap.trace", PARENT, "mget", "users:1", "users:2") == [b"one", b"two"]
    assert [span.name for span in kept.spans] == ["GET users", "MGET users"]


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "nonsense",
        PARENT[:-1] + "0",
        PARENT.upper(),
        PARENT + "-more",
        PARENT[:-1],
        "ff" + PARENT[2:],
        PARENT.replace(TRACE, "0" * 32),
        PARENT.replace("00f067aa0ba902b7", "0" * 16),
        PARENT + " " * 600,
        b"\xff\xfe",
    ],
)
def test_a_context_that_is_none_is_ignored(kept: Kept, door: Door, parent: str | bytes) -> None:
    """So is one that is not sampled. What a service was sent by somebody else must not fail its reads."""
    with door(kept.tracing()).client() as client:
        assert client.ask("SNAP.TRACE", parent, "GET", "users:1") == b"one"
    assert kept.spans == ()


def test_a_newer_version_of_the_context_is_understood(kept: Kept, door: Door) -> None:
    """By what it has in common with this one, as W3C demands."""
    with door(kept.tracing()).client() as client:
        assert client.ask("SNAP.TRACE", "cc" + PARENT[2:] + "-what-comes", "GET", "users:1") == b"one"
    assert len(kept.spans) == 1


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["SNAP.TRACE", PARENT], "wrong number of arguments for 'snap.trace'"),
        (["SNAP.TRACE", PARENT, "snap.TRACE", PARENT, "GET", "users:1"], "other than itself"),
        (["SNAP.TRACE", PARENT, "GET"], "wrong number of arguments for 'get'"),
        (["SNAP.TRACE", PARENT, "NONSENSE", "users:1"], "unknown command 'NONSENSE'"),
    ],
)
def test_what_cannot_be_traced_says_so(
    kept: Kept, door: Door, words: list[str], error: str, traced: bool
) -> None:
    """Whether there are traces or not."""
    with door(kept.tracing() if traced else None).client() as client:
        assert error in str(client.ask(*words))
        assert client.ask("SNAP.TRACE", PARENT, "GET", "users:1") == b"one"


def test_a_client_who_has_not_said_who_he_is_is_not_traced(kept: Kept, door: Door, tmp_path: Path) -> None:
    """What is refused to him is refused as ever; once he is known he is traced, within his tenant."""
    access = AccessConfig(keys_file=str(write_keys(tmp_path / "keys", [ACME])))
    guard = Guard(replace(MemoryNode().config, access=access))
    running = door(kept.tracing(tenants=True), guard)
    running.do(lambda: running.node.keep("acme/users:1", b"acme's"))
    with running.client() as client:
        assert "NOAUTH" in str(client.ask("SNAP.TRACE", PARENT, "GET", "users:1"))
        assert client.ask("SNAP.TRACE", PARENT, "AUTH", ACME.key) == b"OK"
        assert kept.spans == ()
        assert client.ask("SNAP.TRACE", PARENT, "GET", "users:1") == b"acme's"
        assert "NOPERM" in str(client.ask("SNAP.TRACE", PARENT, "DBSIZE"))
    assert [told(span).get("snapring.tenant") for span in kept.spans] == ["acme", None]


def test_only_so_many_requests_a_second_are_traced(kept: Kept, door: Door) -> None:
    """A client's word that it is sampled is not enough; the others are answered all the same."""
    now = [0.0]
    tracing = kept.tracing(rate=2, clock=lambda: now[0])
    with door(tracing).client() as client:
        for _ in range(5):
            assert client.ask("SNAP.TRACE", PARENT, "GET", "users:1") == b"one"
        assert (len(kept.spans), tracing.rate.passed_over) == (2, 3)
        now[0] = 0.5
        assert (
            client.ask("SNAP.TRACE", PARENT[:-1] + "0", "GET", "users:1") == b"one"
        )  # which uses up nothing
        assert client.ask("SNAP.TRACE", PARENT, "GET", "users:1") == b"one"
        assert client.ask("SNAP.TRACE", PARENT, "GET", "users:1") == b"one"
    assert (len(kept.spans), tracing.rate.passed_over) == (3, 4)


def test_a_rate_saves_no_more_than_a_second() -> None:
    """However long nothing came."""
    now = [0.0]
    rate = Rate(3, lambda: now[0])
    now[0] = 1e6
    assert [rate.take() for _ in range(5)] == [True, True, True, False, False]


@pytest.mark.parametrize(("share", "names"), [(0.0, []), (1.0, ["GET users", "PING"])])
def test_a_share_of_the_requests_without_a_context_begins_a_trace(
    kept: Kept, door: Door, share: float, names: list[str]
) -> None:
    """Not of those that memory answers: nothing is done for them but that."""
    with door(kept.tracing(share=share)).client() as client:
        assert client.ask("GET", "users:1") == b"one"
        assert client.ask("GET", "users:2") == b"two"
        assert client.ask("PING") == b"PONG"
    assert [span.name for span in kept.spans] == names
    assert all(span.parent is None for span in kept.spans)


def test_the_share_is_one_of_chance() -> None:
    """And within the rate, too."""
    kept = Kept()
    tracing = kept.tracing(share=0.25, rate=10_000, random=Random(7))
    assert 200 < sum(tracing.draws() for _ in range(1000)) < 300
    bounded = kept.tracing(share=1.0, rate=5, clock=lambda: 0.0)
    assert sum(bounded.drawn("GET") is not None for _ in range(100)) == 5


def test_commands_within_a_trace_have_the_keys_that_they_have(door: Door) -> None:
    """Cluster clients ask where those are."""
    with door(None).client() as client:
        asked = client.ask("COMMAND", "GETKEYS", "SNAP.TRACE", PARENT, "MGET", "users:1", "users:2")
        assert asked == [b"users:1", b"users:2"]
        ((name, arity, flags, *_),) = client.ask("COMMAND", "INFO", "SNAP.TRACE")
    assert (name, arity, sorted(flags)) == (b"snap.trace", -3, [b"movablekeys", b"write"])


def test_a_client_that_goes_ends_what_it_waited_for(kept: Kept, door: Door) -> None:
    """Its span says that it was left."""
    running = door(kept.tracing())
    running.hold("users:2")
    with running.client() as client:
        client.send(command("SNAP.TRACE", PARENT, "GET", "users:2"))
        running.until(lambda: running.node.waiting == 1)
    running.until(lambda: running.node.cancelled)
    running.until(lambda: len(kept.spans) == 1)
    assert told(kept.spans[0])["error.type"] == "cancelled"


async def test_a_stranger_who_calls_is_refused_untraced(kept: Kept, tmp_path: Path) -> None:
    """As with RESP; the others' calls are traced within their tenant."""
    access = AccessConfig(keys_file=str(write_keys(tmp_path / "keys", [ACME])))
    guard = Guard(replace(Memory().config, access=access))
    async with in_memory(guard=guard, tracing=kept.tracing(tenants=True)) as (node, here):
        node.keep("acme/users:1", b"acme's")
        here.metadata = (("traceparent", PARENT),)
        assert (await failure(here.Get(key="users:1")))[1] == "UNAUTHENTICATED"
        assert kept.spans == ()
        here.metadata = (*here.metadata, ("authorization", f"Bearer {ACME.key}"))
        assert (await here.Get(key="users:1")).value == b"acme's"
    assert [(span.name, told(span)["snapring.tenant"]) for span in kept.spans] == [
        ("snapring.v1.Snapring/Get users", "acme")
    ]


@pytest.mark.parametrize(("sent", "found"), [(None, 1), (PARENT[:-1] + "0", 1), (PARENT, 0)])
async def test_calls_that_are_not_traced_are_hits_as_ever(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, sent: str | None, found: int
) -> None:
    """Also where chance traces some."""
    hits: list[bytes] = []
    monkeypatch.setattr(
        Memory, "hit", lambda node, key, _=None: hits.append(key) or node.store.index.get(key)
    )
    async with in_memory(tracing=kept.tracing(share=0.5, random=_Never())) as (node, here):
        node.keep("users:1", b"one")
        here.metadata = (("traceparent", sent),) if sent else ()
        assert (await here.Get(key="users:1")).value == b"one"
    assert (len(hits), len(kept.spans)) == (found, 1 - found)


class _Never(Random):
    """Chance that chooses nobody."""

    def random(self) -> float:
        """The largest."""
        return 0.999


@pytest.mark.parametrize("words", [("GET", "users:1"), ("GET", "users:2"), ("MGET", "users:1", "users:2")])
def test_the_line_about_a_traced_request_names_its_trace(kept: Kept, words: tuple[str, ...]) -> None:
    """And the command that was traced, whether memory had the answer or not."""
    told_lines: list[dict[str, Any]] = []
    log = SimpleNamespace(info=lambda _event, **fields: told_lines.append(fields))
    lines = Lines(LogConfig(requests=1000, slow_requests_s=None), ("users",), log)
    with Running(tracing=kept.tracing(), lines=lines) as running, running.client() as client:
        running.do(lambda: running.node.keep("users:1", b"one"))
        client.ask("PING")
        for sent in (("SNAP.TRACE", PARENT, *words), words):
            running.do(running.door.pick)
            client.ask(*sent)
    traced, untraced = told_lines
    (span,) = kept.spans
    assert (traced["trace_id"], traced["span_id"]) == (TRACE, f"{span.context.span_id:016x}")
    assert (
        (traced["command"], traced["cache"])
        == (untraced["command"], untraced["cache"])
        == (words[0], "users")
    )
    assert "trace_id" not in untraced


async def test_the_line_about_a_call_names_its_trace(kept: Kept) -> None:
    """Of gRPC."""
    told_lines: list[dict[str, Any]] = []
    log = SimpleNamespace(warning=lambda _event, **fields: told_lines.append(fields))
    lines = Lines(LogConfig(requests=0, slow_requests_s=None), ("users",), log)
    async with in_memory(lines=lines, tracing=kept.tracing()) as (_, here):
        for metadata in ((("traceparent", PARENT),), ()):
            here.metadata = metadata
            assert (await failure(here.Get(key="nonsense")))[1] == "CACHE_UNKNOWN"
    assert [line.get("trace_id") for line in told_lines] == [TRACE, None]
