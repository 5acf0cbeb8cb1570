"""A line about a request says what became of it, and never what it was about."""

import asyncio
import io
import json
import logging
import random
import re
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from cluster import logs
from cluster.access.guard import Guard
from cluster.access.needs import COMMANDS
from cluster.config import AccessConfig, LogConfig
from cluster.doors.lines import Lines, Request, sane_id
from cluster.doors.resp import RespDoor
from cluster.doors.resp.commands import Alone, Session
from cluster.doors.resp.followed import Following
from cluster.requests import State
from doors import Client, Elsewhere, MemoryNode, Running, command, resp_config
from grpc_doors import METHODS, Memory, in_memory
from http_doors import Meter, idle_node, sources_of
from keys import holder, write_keys
from nodes import captured
from places import configs, members, owned
from snapring.errors import SnapringError, Unavailable

EVERY = LogConfig(requests=1000, slow_requests_s=None, request_lines=1000)
SECRET = "pst-hidden"
CACHES = ("users", "settings")

Line = Mapping[str, Any]


class Book:
    """A log that is read."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def info(self, event: str, **fields: object) -> None:
        """A line."""
        self.lines.append({"event": event, "level": "info", **fields})

    def warning(self, event: str, **fields: object) -> None:
        """One to look at."""
        self.lines.append({"event": event, "level": "warning", **fields})

    def only(self) -> Line:
        """The one line that there is."""
        (line,) = self.lines
        return line


class Clock:
    """A time that passes when a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def lines_of(config: LogConfig = EVERY, clock: Clock | None = None) -> tuple[Lines, Book]:
    """Lines that are read, of requests whose random id is ``id``."""
    book = Book()
    more = {} if clock is None else {"clock": clock}
    return Lines(config, CACHES, book, new_id=lambda: "id", **more), book  # type: ignore[arg-type]


def picking(door: Running, client: Client, *words: str) -> object:
    """The reply to a command that was picked, of a client that has been let in by then."""
    client.ask("PING")
    door.do(door.door.pick)
    return client.ask(*words)


@pytest.fixture
def book() -> Book:
    """What is logged by the door that `door` runs."""
    return Book()


@pytest.fixture
def door(book: Book) -> Iterator[Running]:
    """A RESP door that tells of what was picked, and of failures."""
    with Running(lines=Lines(EVERY, CACHES, book, new_id=lambda: "id")) as running_door:
        yield running_door


def test_a_hit_that_was_picked_is_told_in_full(door: Running, book: Book) -> None:
    """It is answered as ever; the next one takes the hit path again."""
    door.node.keep("users:1", b"v")
    with door.client() as client:
        assert picking(door, client, "GET", "users:1") == b"v"
        line = dict(book.only())
        assert 0 <= line.pop("response_time_ms") < 10_000
        assert line == {
            "event": "request", "level": "info", "door": "resp", "command": "GET", "tenant": "default",
            "cache": "users", "source": "local", "cache_hit": True, "state": "FRESH", "age_ms": 12.1,
            "request_id": "id",
        }  # fmt: skip
        before = door.node.store.tallies["users"].door_hits
        assert client.ask("GET", "users:1") == b"v"
        assert door.node.store.tallies["users"].door_hits == before + 1
        assert len(book.lines) == 1


@pytest.mark.parametrize(
    "words", [("GET", "users:2"), ("SNAP.GET", "users:2"), ("SNAP.GET", "users:2", "STRONG")]
)
def test_a_load_is_told_as_one(door: Running, book: Book, words: tuple[str, ...]) -> None:
    """From the moment on that it was asked for, to its end."""
    door.node.rows["users:2"] = b"w"
    with door.client() as client:
        picking(door, client, *words)
        line = book.only()
        assert (line["command"], line["source"], line["cache_hit"], line["state"]) == (
            words[0], "load", False, "FRESH",
        )  # fmt: skip


def test_of_many_keys_the_farthest_and_the_oldest_are_told(door: Running, book: Book) -> None:
    """And how many there were, and how many memory had."""
    door.node.keep("users:1", b"v")
    with door.client() as client:
        assert picking(door, client, "MGET", "users:1", "users:2", "users:1", "settings:a") is not None
        line = book.only()
        told = [line[field] for field in ("cache", "keys", "hits", "cache_hit", "source")]
        assert told == ["users,settings", 4, 2, False, "load"]


def test_who_keeps_values_is_told_of_as_well(door: Running, book: Book) -> None:
    """His reads are others, and are still tracked."""
    door.node.keep("users:1", b"v")
    with door.client() as client:
        client.ask("HELLO", "3")
        client.ask("CLIENT", "TRACKING", "ON")
        assert picking(door, client, "GET", "users:1") == b"v"
        assert (book.only()["source"], door.door.counts.tracked_keys) == ("local", 1)


def test_a_write_is_told_with_its_keys(door: Running, book: Book) -> None:
    """Nothing is said of where an answer came from."""
    with door.client() as client:
        picking(door, client, "SNAP.WRITE", "PUT", "settings:a", SECRET, "DEL", "settings:b")
        line = book.only()
        assert (line["command"], line["cache"], line["keys"]) == ("SNAP.WRITE", "settings", 2)
        assert "source" not in line


def test_what_failed_is_told_by_its_code(door: Running, book: Book) -> None:
    """At once, after a while, or in a frame; what nobody knows is no command's name."""
    door.node.rows["users:2"] = Unavailable(f"no {SECRET}")
    with door.client() as client:
        for words in (
            ("GET", "users:2"),
            ("AUTH", "a", SECRET),
            (SECRET, SECRET),
            ("GET", f"{SECRET}:1"),
        ):
            client.ask(*words)
    assert [(line["event"], line["command"], line["error"]) for line in book.lines[:3]] == [
        ("failed request", "GET", "UNAVAILABLE"),
        ("failed request", "AUTH", "WRONGPASS"),
        ("failed request", "?", "ERR"),
    ]
    assert SECRET not in str(book.lines)


def test_that_there_is_no_cluster_is_no_failure(door: Running, book: Book) -> None:
    """Clients ask before anything else: only who was picked gets a line, and no error is counted."""
    with door.client() as client:
        for what in ("SLOTS", "SHARDS", "NODES", "MYID", "MYSHARDID"):
            assert "cluster support disabled" in str(client.ask("CLUSTER", what))
        assert not book.lines
        picking(door, client, "CLUSTER", "SLOTS")
        assert (book.only()["event"], door.door.counts.errors) == ("request", 0)


def test_what_waits_is_told_if_it_took_long(book: Book) -> None:
    """Whether it was picked or not: where the answer came from, and how long it took."""
    clock = Clock()
    slow = LogConfig(requests=0, slow_requests_s=2.0, request_lines=10)
    with Running(lines=Lines(slow, CACHES, book, clock=clock)) as door, door.client() as client:
        for took_s in (1.9, 2.0):
            door.hold("users:2")
            client.send(command("GET", "users:2"))
            door.until(lambda: door.node.waiting == 1)
            clock.now_s += took_s
            door.release("users:2")
            client.reply()
        line = book.only()
        assert (line["event"], line["level"], line["response_time_ms"]) == ("slow request", "warning", 2000.0)
        assert (line["cache"], line["source"], line["cache_hit"]) == ("users", "load", False)


@pytest.mark.parametrize("come", [b"far", None, Unavailable("gone")], ids=["a value", "no row", "an error"])
def test_what_another_node_answers_late_or_not_at_all_is_told(book: Book, come: Any) -> None:
    """Although it takes no task of its own."""
    clock = Clock()
    slow = LogConfig(requests=0, slow_requests_s=2.0, request_lines=10)
    with Running(lines=Lines(slow, CACHES, book, clock=clock)) as door, door.client() as client:
        late = door.node.elsewhere["users:far"] = Elsewhere()
        late.asked_s, late.state = clock.now_s, State.STALE
        client.send(command("GET", "users:far"))
        door.until(lambda: late.done is not None)
        clock.now_s += 3.0
        door.do(lambda: late.done and late.done(come))
        client.reply()
        line = book.only()
        assert (line["command"], line["cache"], line["response_time_ms"]) == ("GET", "users", 3000.0)
        if isinstance(come, SnapringError):
            assert line["error"] == "UNAVAILABLE"
        else:
            assert (line["source"], line["state"], line["cache_hit"]) == ("peer", "STALE", False)


async def test_a_picked_read_of_another_node_says_who_answered(database: str) -> None:
    """It goes there by itself, with all that the other knows of the answer."""
    async with captured(database), members(configs(database, 2)) as (here, there):
        book = Book()
        lines = Lines(EVERY, here.node.config.caches, book)
        door = RespDoor(here.reads, resp_config(), lines=lines)
        session = Session(id=1, peer="", began_s=0.0, picked=True)
        key = owned(here, there.name)
        outcome = door._commands.execute(session, [b"GET", key.encode()])
        assert isinstance(outcome, Coroutine)
        await outcome
        line = book.only()
        assert (line["source"], line["cache_hit"], line["cache"]) == ("peer", False, "user")
        assert line["age_ms"] >= 0


async def test_calls_are_told_as_commands_are() -> None:
    """By the id that the client gave them, if it is sane."""
    lines, book = lines_of()
    async with in_memory(lines=lines) as (node, calling):
        node.keep("users:1", b"v")
        for ident, shown in (("req-7", "req-7"), ("two words", "id"), ("x" * 129, "id"), (None, "id")):
            calling.metadata = () if ident is None else (("x-request-id", ident),)
            calling.door.pick()
            assert (await calling.Get(key="users:1")).value == b"v"
            line = dict(book.lines[-1])
            del line["response_time_ms"]
            assert line == {
                "event": "request", "level": "info", "door": "grpc", "command": "Get", "tenant": "default",
                "cache": "users", "source": "local", "cache_hit": True, "state": "FRESH", "age_ms": 12.1,
                "request_id": shown,
            }  # fmt: skip
        await calling.Get(key="users:1")
        assert len(book.lines) == 4


async def test_calls_with_many_keys_and_calls_that_fail_are_told() -> None:
    """As commands are."""
    lines, book = lines_of()
    async with in_memory(lines=lines) as (node, calling):
        node.keep("users:1", b"v")
        calling.door.pick()
        await calling.GetMany(keys=["users:1", "users:2", "settings:a"])
        for call in (calling.Get(key=f"{SECRET}:1"), calling.Get(key=f"{SECRET} users")):
            with pytest.raises(grpc.aio.AioRpcError):
                await call
    many, *failed = book.lines
    assert [many[field] for field in ("cache", "keys", "hits", "source")] == ["users,settings", 3, 1, "load"]
    assert [(line["event"], line["command"], line["error"]) for line in failed] == [
        ("failed request", "Get", "CACHE_UNKNOWN"),
        ("failed request", "Get", "KEY_INVALID"),
    ]
    assert SECRET not in str(book.lines)


@pytest.mark.parametrize("entered", [False, True], ids=["a stranger", "a tenant"])
def test_whose_request_it_was_is_what_his_key_says(book: Book, tmp_path: Path, entered: bool) -> None:
    """Not what the text of a key claims."""
    who = holder("billing", "acme", "read")
    known = replace(
        MemoryNode().config, access=AccessConfig(keys_file=str(write_keys(tmp_path / "keys", [who])))
    )
    lines = Lines(EVERY, CACHES, book)
    with Running(guard=Guard(known), lines=lines) as door, door.client() as client:
        if entered:
            client.ask("AUTH", who.key)
        picking(door, client, "GET", "zeta/users:1")
    line = book.lines[-1]
    assert (line["error"], line.get("tenant"), line.get("cache")) == (
        ("PERMISSION_DENIED", "acme", "users") if entered else ("UNAUTHENTICATED", None, None)
    )


async def test_many_keys_that_memory_has_are_told_too() -> None:
    """In a call for many, each is noted."""
    lines, book = lines_of()
    async with in_memory(lines=lines) as (node, calling):
        node.keep("users:1", b"v")
        calling.door.pick()
        await calling.GetMany(keys=["users:1", "users:1"])
    line = book.only()
    assert [line[field] for field in ("keys", "hits", "cache_hit", "source")] == [2, 2, True, "local"]


POOL = [
    b"users:pst-hidden", b"settings:pst-hidden", b"pst-hidden", b"pst-hidden:1", b"{users:pst-hidden}@pst-hidden",
    b"users:1", b"PUT", b"DEL", b"IFVERSION", b"0", b"ATLEAST", b"EXACT", b"STRONG", b"AFTER", b"COUNT", b"NX", b"",
    b"AUTH", b"TRACKING", b"ON", b"SETNAME", b"GET", b"TICKET", b"7", b"KEYSLOT", b"-pst-hidden", b"3", b"\r\npst-hidden",
]  # fmt: skip


@pytest.mark.parametrize("name", sorted(COMMANDS))
async def test_no_line_about_a_command_holds_a_secret(name: str) -> None:
    """Whatever its words, and whether it was answered, slow or failed: every line is names, numbers and an id."""
    chance = random.Random(name)
    clock = Clock()
    lines, book = lines_of(LogConfig(requests=1000, slow_requests_s=0.0001, request_lines=1000), clock)
    node = MemoryNode()
    door = RespDoor(node, resp_config(), near=node, watching=node.watching, lines=lines)
    node.keep("users:pst-hidden", b"pst-hidden")
    node.rows["settings:pst-hidden"] = b"pst-hidden"
    for turn in range(120):
        clock.now_s += 1.0
        node.refusal = Unavailable("pst-hidden") if turn % 5 == 0 else None
        session = Session(
            id=1, peer="pst-hidden", began_s=0.0, name=b"pst-hidden", picked=chance.random() < 0.5
        )
        words = [name.encode(), *(chance.choice(POOL) for _ in range(chance.randrange(7)))]
        await carried_out(door, session, words, clock)
    assert book.lines
    for line in book.lines:
        assert SECRET not in str(line)
        assert set(line) <= FIELDS, line
        assert line.get("cache", "users") in {"users", "settings", "users,settings", "settings,users"}


FIELDS = {
    "event", "level", "door", "command", "tenant", "cache", "keys", "hits", "source", "cache_hit", "state", "age_ms",
    "response_time_ms", "request_id", "error",
}  # fmt: skip


async def carried_out(door: RespDoor, session: Session, words: list[bytes], clock: Clock) -> None:
    """Have a command answered, which takes a second where it waits."""
    try:
        outcome = door._commands.execute(session, words)
        if isinstance(outcome, Alone):
            outcome = outcome.begin()
        if isinstance(outcome, Coroutine):
            clock.now_s += 1.0
            await outcome
    except SnapringError:
        pass


@pytest.mark.parametrize("method", sorted(METHODS))
async def test_no_line_about_a_call_holds_a_secret(method: str) -> None:
    """Whatever is asked, metadata and bytes that are no message included."""
    chance = random.Random(method)
    lines, book = lines_of(LogConfig(requests=1000, slow_requests_s=0.0001, request_lines=1000))
    node = Memory()
    node.keep("users:pst-hidden", b"pst-hidden")
    async with in_memory(node, lines=lines) as (_, calling):
        calling.metadata = (("authorization", f"Bearer {SECRET}"), ("x-request-id", f"{SECRET} "))
        for _ in range(25):
            if chance.random() < 0.5:
                calling.door.pick()
            data = b"".join(
                bytes((chance.choice((10, 18, 26)), len(text))) + text
                for text in chance.choices(POOL, k=chance.randrange(3))
            )
            try:
                if method == "Watch":
                    await asyncio.wait_for(calling.Watch(prefixes=[SECRET, ""]).read(), 10.0)
                else:
                    await calling.raw(method, data)
            except grpc.aio.AioRpcError:
                pass
    assert book.lines
    for line in book.lines:
        assert SECRET not in str(line)
        assert set(line) <= FIELDS, line


def test_each_kind_is_bounded_and_what_is_left_out_is_said() -> None:
    """So many in a second; then one line says how many there was no room for."""
    clock = Clock()
    lines, book = lines_of(LogConfig(requests=3, slow_requests_s=1.0, request_lines=5), clock)
    assert [lines.picks() for _ in range(5)] == [True] * 3 + [False] * 2
    for _ in range(20):
        lines.failed(asked(clock), Unavailable("x"))
        slow = asked(clock)
        slow.began_s -= 1.0
        lines.answered(slow)
    assert lines.written == {"sampled": 0, "slow": 5, "failed": 5}
    assert lines.left_out == {"slow": 15, "failed": 15}
    book.lines.clear()
    for _ in range(3):
        lines.say_left_out()
        lines.failed(asked(clock), Unavailable("x"))
    said = {"event": "requests left out of the log", "level": "warning", "slow": 15, "failed": 15}
    assert book.lines == [said]
    clock.now_s += 1.0
    lines.say_left_out()
    assert book.lines[1:] == [{**said, "slow": 0, "failed": 3}]
    lines.failed(asked(clock), Unavailable("x"))
    assert (lines.written["failed"], lines.picks()) == (6, True)


def test_where_no_lines_are_wanted_none_says_what_was_left_out() -> None:
    """It is counted all the same."""
    lines, book = lines_of(LogConfig(request_lines=0), Clock())
    lines.failed(asked(Clock()), Unavailable("x"))
    lines.say_left_out()
    assert (book.lines, lines.left_out["failed"]) == ([], 1)


def asked(clock: Clock) -> Request:
    """A request that comes now."""
    return Request(door="resp", command="GET", began_s=clock.now_s)


async def test_doors_are_picked_as_often_as_configured() -> None:
    """None where no request is to get a line for nothing."""
    picked: list[str] = []

    class Door:
        def pick(self) -> None:
            picked.append("door")

    for requests, at_least in ((1000, 3), (0, 0)):
        picked.clear()
        lines, _ = lines_of(LogConfig(requests=requests))
        task = asyncio.create_task(lines.run([Door(), Door()]))
        while len(picked) < at_least:
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)
        task.cancel()
        assert bool(picked) == bool(at_least)


def test_lines_are_counted(door: Running, book: Book) -> None:
    """Those written, and those left out, by kind."""
    lines, _ = lines_of(LogConfig(requests=1, slow_requests_s=None, request_lines=1))
    meter = Meter(sources_of(idle_node(), lines=lines))
    for _ in range(3):
        lines.failed(asked(Clock()), "ERR")
    assert meter.value("request_lines_total", kind="failed") == 1
    assert meter.value("request_lines_left_out_total", kind="failed") == 2


@pytest.mark.parametrize("form", ["json", "console"])
def test_lines_are_read_by_programs_and_people(form: Any) -> None:
    """One object, or one line of words; what is bound to structlog's context is part of it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    try:
        logs.begin(LogConfig(format=form), node="node-0", stream=stream)
        lines = Lines(EVERY, CACHES, logs.events("snapring.requests"), new_id=lambda: "id")
        lines.tell_failure(
            Request(door="resp", command="GET", began_s=0.0, keys=lambda: [b"acme/users:1"]), "UNAVAILABLE"
        )
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    (text,) = stream.getvalue().splitlines()
    if form == "json":
        said = json.loads(text)
        assert (said["event"], said["logger"], said["node"]) == (
            "failed request",
            "snapring.requests",
            "node-0",
        )
        assert (said["tenant"], said["cache"], said["error"]) == ("acme", "users", "UNAVAILABLE")
    else:
        assert re.search(
            r"WARNING snapring.requests: failed request door=resp command=GET tenant=acme cache=users "
            r"response_time_ms=[0-9.]+ request_id=id error=UNAVAILABLE$",
            text,
        )


@pytest.mark.parametrize(
    ("text", "sane"),
    [("a-1", True), ("x" * 128, True), ("x" * 129, False), ("", False), ("a b", False), ("é", False), ("a\n", False), (b"a", False)],
)  # fmt: skip
def test_an_id_is_printable_and_short(text: object, sane: bool) -> None:
    """Else the node makes one."""
    assert bool(sane_id(text)) is sane


async def test_work_that_is_cancelled_before_it_began_is_closed() -> None:
    """As the coroutine itself would be: no line, and no warning."""
    lines, book = lines_of()

    async def never() -> bytes:
        raise AssertionError

    task = asyncio.ensure_future(Following(never(), asked(Clock()), lines))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not book.lines
