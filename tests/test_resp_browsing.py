"""SNAP.KEYS of a cache of rows: what is in the memory of the node that is asked."""

import asyncio
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.access.guard import Guard
from cluster.config import AccessConfig
from cluster.doors.resp.commands import Session
from cluster.doors.resp.listing import ListingCommands
from cluster.entries import End, Entry
from cluster.memory import browsing
from cluster.memory.browsing import browse
from doors import CACHE, SNAPSHOT, Client, MemoryNode, Running, resp_config
from keys import holder, write_keys
from nodes import WITHIN_S
from snapring.errors import Overloaded

ACME, ZETA, CHIEF = holder("a", "acme"), holder("z", "zeta"), holder("chief", "chiefs", "admin")


@pytest.fixture
def running() -> Iterator[Running]:
    """A door before a node with entries of two caches, in no order."""
    node = MemoryNode()
    for key in ("users:2", "users:10", "users:1", "users", "users_2:1", "acme/users:1", "settings:a"):
        node.keep(key, b"1")
    with Running(resp_config(), node) as made:
        yield made


def listed(client: Client, *words: str) -> list[str]:
    """The keys in a reply."""
    reply = client.ask("SNAP.KEYS", *words)
    assert isinstance(reply, dict), reply
    return [row[0].decode() for row in reply[b"keys"]]


def test_what_is_in_memory_is_listed_in_order(running: Running) -> None:
    """Of that cache and tenant alone; its name alone begins all of its keys."""
    with running.client() as client:
        client.ask("HELLO", "3")
        assert listed(client, "users") == ["users", "users:1", "users:10", "users:2"]
        assert listed(client, "users:1") == ["users:1", "users:10"]
        assert listed(client, "acme/users:") == ["acme/users:1"]
        assert listed(client, "users:", "COUNT", "2") == ["users:1", "users:10"]
        assert listed(client, "users:", "AFTER", "users:10") == ["users:2"]


def test_each_key_comes_with_what_it_is(running: Running) -> None:
    """Its age, whether it is open, and its bytes; the node says who it is, and makes no claim of a snapshot."""
    entry = running.node.store.index[b"users:1"]
    running.do(lambda: setattr(entry, "cost", 700))
    with running.client() as client:
        client.ask("HELLO", "3")
        reply: Any = client.ask("SNAP.KEYS", "users:1", "COUNT", "1")
        assert set(reply) == {b"keys", b"node"}
        ((key, age_ms, state, size),) = reply[b"keys"]
        assert (key, state, size, reply[b"node"]) == (b"users:1", b"open", 700, b"memory")
        assert age_ms > 0
        running.do(lambda: entry.ended(End((5,), SNAPSHOT, 0.0)))
        assert client.ask("SNAP.KEYS", "users:1", "COUNT", "1")[b"keys"][0][2] == b"ended"  # type: ignore[index,call-overload]
    with running.client() as client:
        assert client.ask("SNAP.KEYS", "users:9") == [b"keys", [], b"node", b"memory"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("STRONG", "ARGUMENT_INVALID 'users' is a cache of rows: what of it is in memory is of no one snapshot"),
        ("COUNT 10001", "ARGUMENT_INVALID a listing has 1 to 10000 keys"),
        ("AFTER {", "KEY_INVALID"),
    ],
)  # fmt: skip
def test_what_memory_cannot_answer_is_refused(running: Running, words: str, message: str) -> None:
    """It is of no snapshot, and a page has a bound."""
    with running.client() as client:
        assert message in str(client.ask("SNAP.KEYS", "users:", *words.split()))


def test_a_page_of_memory_too_large_to_send_is_refused() -> None:
    """``write_buffer`` bounds it."""
    node = MemoryNode()
    node.keep("users:1", b"1")
    with Running(resp_config(write_buffer_bytes=16), node) as running, running.client() as client:
        assert "ask for a smaller COUNT" in str(client.ask("SNAP.KEYS", "users:"))


def test_a_tenant_lists_its_own_entries_and_no_others(tmp_path: Path) -> None:
    """Nor does an administrator."""
    node = MemoryNode()
    for key in ("users:1", "acme/users:1", "zeta/users:1"):
        node.keep(key, b"1")
    keys = write_keys(tmp_path / "keys", [ACME, ZETA, CHIEF])
    node.config = replace(node.config, access=AccessConfig(keys_file=str(keys)))
    with Running(resp_config(), node, Guard(node.config)) as running:
        for who, found in ((ACME, ["acme/users:1"]), (ZETA, ["zeta/users:1"]), (CHIEF, [])):
            with running.client() as client:
                client.ask("HELLO", "3", "AUTH", "default", who.key)
                assert listed(client, "users:") == listed(client, f"{who.tenant}/users:") == found
                assert "NOPERM" in str(client.ask("SNAP.KEYS", "other/users:"))


async def test_a_long_listing_lets_others_go_on_and_is_one_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops between steps; beyond ``resp.listings`` at once, others come again."""
    monkeypatch.setattr(browsing, "LOOKED_AT_ONCE", 10)
    node = MemoryNode()
    for number in range(100):
        node.keep(f"users:{number}", b"1")
    commands = ListingCommands(node, resp_config(listings=1))
    session = Session(id=1, peer="", began_s=0.0)
    listing = asyncio.ensure_future(commands.keys(session, [b"SNAP.KEYS", b"users:"]))
    turns = 0
    async with asyncio.timeout(WITHIN_S):
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await commands.keys(session, [b"SNAP.KEYS", b"users:"])
        while not listing.done():
            turns += 1
            await asyncio.sleep(0)
        assert turns >= 9
        assert (await listing).count(b"users:") == 100
        await commands.keys(session, [b"SNAP.KEYS", b"users:"])


NUMBERS = st.integers(0, 60)


@given(
    present=st.sets(NUMBERS), after=NUMBERS, most=st.integers(1, 20), changed=st.lists(NUMBERS, max_size=20)
)
def test_a_listing_is_of_what_was_there_all_the_time(
    present: set[int], after: int, most: int, changed: list[int]
) -> None:
    """And of nothing that never was, however memory changes meanwhile; complete up to its last key."""
    index = {key(number): entry(number) for number in present}
    steps, last, everybody = browse(index, b"users", key(after), most, 1.0), key(after), set(index)
    changes = iter(changed)
    restless = {key(number) for number in changed}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(browsing, "LOOKED_AT_ONCE", 7)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found = [kept.key for kept in end.value]
                break
            if (number := next(changes, None)) is not None and index.pop(key(number), None) is None:
                index[key(number)] = entry(number)
                everybody.add(key(number))
    assert found == sorted(set(found))
    assert set(found) <= {each for each in everybody if each > last}
    steady = sorted(each for each in {key(n) for n in present} - restless if each > last)
    end_at = len(steady) if len(found) < most else bisect_right(steady, found[-1])
    assert set(steady[:end_at]) <= set(found)
    assert len(found) <= most


def key(number: int) -> bytes:
    """A key; their order is that of the numbers."""
    return b"users:%02d" % number


def entry(number: int) -> Entry:
    """What is under it."""
    return Entry(key=key(number), cache=CACHE, value=b"1", snapshot=SNAPSHOT, loaded_s=0.0, tags=())
