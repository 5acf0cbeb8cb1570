"""Memoised functions: what they return is what they would return now, and they run only when they must."""

import asyncio
import contextvars
import inspect
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from door_nodes import BEHIND, Served, in_front_of, served
from nodes import caught_up
from snapring import AsyncClient, Client, memos
from snapring.capture import MAX_DEPENDENCIES
from snapring.errors import CallInvalid, MemoUnsettled, ValueInvalid

UPDATE = b"UPDATE users SET name = 'new' WHERE id = 1"


@asynccontextmanager
async def one(url: str) -> AsyncIterator[tuple[Served, AsyncClient]]:
    """A node and a client."""
    async with in_front_of(url, AsyncClient, None) as ((node,), client):
        yield node, client


async def change(url: str, node: Served) -> None:
    """Commit a change of user 1, and let the node follow."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as writer:
        await writer.execute(UPDATE)
    await caught_up(node.node)


def counted(client: Any, **options: Any) -> tuple[Callable[[int], Any], list[int]]:
    """A memoised function of a user's name, and its runs."""
    runs: list[int] = []

    @client.cached("pages", name="greeting", **options)
    async def greeting(number: int) -> dict[str, object]:
        runs.append(number)
        user = await client.get(f"user:{number}")
        return {"text": f"Hello, {user.value['name']}", "number": number}

    return greeting, runs


async def test_a_function_runs_once_for_each_of_its_arguments(database: str) -> None:
    """However they are given; and for every process, as long as what it read is the same."""
    async with one(database) as (node, client):
        greeting, runs = counted(client)
        for _ in range(3):
            assert await greeting(1) == {"text": "Hello, user 1", "number": 1}
        assert await greeting(number=1) == await greeting(1)
        assert (await greeting(2))["text"] == "Hello, user 2"
        assert runs == [1, 2]
        await caught_up(node.node)
        async with AsyncClient(node.address) as other:
            same, none = counted(other)
            assert (await same(1), none) == (await greeting(1), [])


async def test_what_it_read_ends_a_result(database: str) -> None:
    """By whomever the row was changed; another row's change does not."""
    async with one(database) as (node, client):
        greeting, runs = counted(client)
        await greeting(1)
        await greeting(2)
        await change(database, node)
        assert (await greeting(1))["text"] == "Hello, new"
        await greeting(2)
        assert runs == [1, 2, 1]


async def test_a_row_that_is_not_there_is_a_dependency_too(database: str) -> None:
    """And so is a key of a store cache that nobody has put yet."""
    async with one(database) as (node, client):

        @client.cached("pages", name="whole")
        async def whole() -> list[object]:
            found = await client.get_many(["user:99", "pages:banner"])
            return [reply.value for reply in found.values()]

        assert await whole() == [None, None]
        await client.put("pages:banner", "x")
        await caught_up(node.node)
        assert await whole() == [None, b"x"]
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as writer:
            await writer.execute("INSERT INTO users VALUES (99, 'late', 1)")
        await caught_up(node.node)
        assert (await whole())[0] == {"id": 99, "name": "late", "team_id": 1}


async def test_a_tag_ends_what_was_declared_to_depend_on_it(database: str) -> None:
    """Also while the function runs: what it returns then is not kept."""
    async with one(database) as (node, client):
        runs = []

        @client.cached("pages", tags=lambda team: ["all", f"team-{team}"])
        async def outside(team: int) -> int:
            runs.append(team)
            if len(runs) == 1:
                await asyncio.create_task(touch("team-7"), context=outer)
            return len(runs)

        async def touch(tag: str) -> None:
            await client.touch("pages", tag)
            await caught_up(node.node)

        outer = contextvars.copy_context()
        assert await outside(7) == 1
        assert await outside(7) == 2
        assert await outside(7) == 2
        assert await outside(8) == 3
        await touch("team-8")
        assert await outside(7) == 2
        await touch("all")
        assert (await outside(7), await outside(8)) == (4, 5)


async def test_callers_that_miss_together_share_one_run(database: str) -> None:
    """Tasks of one client; and each has an answer."""
    async with one(database) as (_node, client):
        greeting, runs = counted(client)
        answers = await asyncio.gather(*(greeting(1) for _ in range(50)))
        assert runs == [1]
        assert all(answer == answers[0] for answer in answers)


async def test_threads_that_miss_together_share_one_run(database: str) -> None:
    """The other colour."""
    async with served(database) as (node,):
        with Client(node.address) as client:
            runs = []

            @client.cached("pages")
            def name(number: int) -> str:
                runs.append(number)
                return str(client.get(f"user:{number}").value["name"])

            answers = await asyncio.gather(*(asyncio.to_thread(name, 1) for _ in range(8)))
            assert (runs, set(answers)) == ([1], {"user 1"})
            await change(database, node)
            assert await asyncio.to_thread(name, 1) == "new"


async def test_a_caller_that_goes_away_fails_nobody(database: str) -> None:
    """Those who waited for it compute by themselves; those who waited for an error hear it."""
    async with one(database) as (_node, client):
        begun, go_on = asyncio.Event(), asyncio.Event()

        @client.cached("pages")
        async def slow(fails: bool) -> int:
            begun.set()
            await go_on.wait()
            if fails:
                raise KeyError("mine")
            return 1

        first = asyncio.create_task(slow(False))
        await begun.wait()
        others = [asyncio.create_task(slow(False)) for _ in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        go_on.set()
        assert await asyncio.gather(*others) == [1, 1, 1]
        for raised in await asyncio.gather(*(slow(True) for _ in range(3)), return_exceptions=True):
            assert isinstance(raised, KeyError)


async def test_a_result_is_true_at_one_snapshot(database: str) -> None:
    """A function that read one row before and another after a commit runs again, at one snapshot."""
    async with one(database) as (node, client):
        runs = []

        @client.cached("pages")
        async def both() -> list[str]:
            runs.append(1)
            names = []
            for key in ("user:1", "user:2"):
                names.append((await client.get(key)).value["name"])
                if len(runs) == 1:
                    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as writer:
                        await writer.execute("UPDATE users SET name = 'new' WHERE id IN (1, 2)")
                    await caught_up(node.node)
            return names

        assert await both() == ["new", "new"]
        assert len(runs) == 2


async def test_what_changes_all_the_time_is_said_so(database: str) -> None:
    """A function that reads something else at every run settles never."""
    async with one(database) as (node, client):
        number = itertools.count(2)

        @client.cached("pages")
        async def restless() -> None:
            n = next(number)
            await client.get("user:1")
            async with await psycopg.AsyncConnection.connect(database, autocommit=True) as writer:
                await writer.execute("UPDATE users SET name = name || '+' WHERE id IN (1, %s)", [n])
            await caught_up(node.node)
            await client.get(f"user:{n}")

        with pytest.raises(MemoUnsettled, match="changed 4 times while it ran"):
            await restless()


async def test_a_slow_result_does_not_replace_a_newer_one(database: str) -> None:
    """It was computed from what was; it is answered by whoever it was computed for, and not kept."""
    async with one(database) as (node, client), AsyncClient(node.address) as slow_client:
        held, go_on = asyncio.Event(), asyncio.Event()

        async def body(which: AsyncClient) -> str:
            name = str((await which.get("user:1")).value["name"])
            if which is slow_client:
                held.set()
                await go_on.wait()
            return name

        slow = slow_client.cached("pages", name="same")(lambda: body(slow_client))
        quick = client.cached("pages", name="same")(lambda: body(client))
        waiting = asyncio.create_task(slow())
        await held.wait()
        await change(database, node)
        assert await quick() == "new"
        go_on.set()
        assert await waiting == "user 1"
        await caught_up(node.node)
        stored = (
            await client.get(memos.memo_key("pages", "same", memos.argument_bytes(_nothing, (), {})))
        ).value
        assert memos.result(memos.memo(stored, memos.argument_bytes(_nothing, (), {})).result) == "new"  # type: ignore[union-attr]


_nothing = inspect.signature(lambda: None)


async def test_in_a_session_a_hit_is_no_older_than_the_session(database: str) -> None:
    """Nodes that do not follow by themselves, in turn: what the session put, its functions have read."""
    async with in_front_of(database, AsyncClient, BEHIND, BEHIND) as (_nodes, client):

        @client.cached("pages")
        async def banner() -> bytes | None:
            value: bytes | None = (await client.get("pages:banner")).value
            return value

        for _ in range(4):
            await banner()
        with client.session():
            for n in range(4):
                await client.put("pages:banner", str(n))
                assert [await banner() for _ in range(3)] == [b"%d" % n] * 3


async def test_a_function_may_use_another(database: str) -> None:
    """It depends on what that read, whether that ran or was a hit."""
    async with one(database) as (node, client):
        greeting, runs = counted(client)

        @client.cached("pages")
        async def page(number: int) -> str:
            return f"<h1>{(await greeting(number))['text']}</h1>"

        await greeting(1)
        assert await page(1) == "<h1>Hello, user 1</h1>"
        assert await page(2) == "<h1>Hello, user 2</h1>"
        await change(database, node)
        assert await page(1) == "<h1>Hello, new</h1>"
        assert runs == [1, 2, 1]


async def test_what_cannot_be_followed_is_refused(database: str) -> None:
    """With what to do instead."""
    async with one(database) as (node, client), AsyncClient(node.address) as other:
        for number, inside in enumerate(
            (
                lambda: client.get("user:1", strong=True),
                lambda: client.keys("pages:"),
                lambda: client.put("pages:x", b""),
                client.token,
                lambda: other.get("user:1"),
                lambda: client.get_many([f"user:{n}" for n in range(MAX_DEPENDENCIES + 1)]),
                lambda: _answer((1, 2)),
                lambda: _answer(2**70),
            )
        ):
            with pytest.raises(CallInvalid):
                await client.cached("pages", name=f"bad-{number}")(inside)()
        with pytest.raises(CallInvalid, match="name a cache of kind store"):
            await client.cached("user", name="rows")(lambda n: _answer(1))(1)
        with pytest.raises(ValueInvalid):
            await client.cached("pages", name="big")(lambda: _answer(b"x" * 2**19))()


async def _answer(value: object) -> object:
    return value


@pytest.mark.parametrize("bad", [object(), {1, 2}, 2**64, memos, [[object()]], "x" * 20_000, _answer])
def test_an_argument_that_makes_no_key_is_refused(bad: object) -> None:
    """Before anything is sent."""
    client = Client("127.0.0.1:1")
    with pytest.raises(CallInvalid, match=r"argument"):
        client.cached("pages")(lambda value: value)(bad)
    client.close()


def test_different_arguments_have_different_keys() -> None:
    """Types are told apart, and the order of a dict is not."""
    signature = inspect.signature(lambda value: value)
    values: list[Any] = [
        1,
        1.0,
        True,
        "1",
        b"1",
        None,
        [1],
        (1,),
        [[1], 2],
        [[1, 2]],
        ((1,), 2),
        {"a": 1},
        {1: "a"},
        {},
    ]
    packed = [memos.argument_bytes(signature, (value,), {}) for value in values]
    assert len(set(packed)) == len(values)
    one, other = {"a": 1, "b": 2}, {"b": 2, "a": 1}
    assert memos.argument_bytes(signature, (one,), {}) == memos.argument_bytes(
        signature, (), {"value": other}
    )
    deep: Any = []
    for _ in range(memos.MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(CallInvalid, match="nest deeper"):
        memos.argument_bytes(signature, (deep,), {})


@pytest.mark.parametrize(
    "raw", [None, b"", b"\xc1", b"x", memos.Memo(b"other", {}, b"\x01").encoded, b"\x94\x02aaa"]
)
def test_a_value_that_is_no_memo_is_a_miss(raw: bytes | None) -> None:
    """Whoever put it: nothing is answered from it."""
    assert memos.memo(raw, b"mine") is None
