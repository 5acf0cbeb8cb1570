"""Plain reads of keys that another node owns, there and back without a task: the same answers as any other way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from math import inf, nan
from types import SimpleNamespace

import pytest

from cluster.config import PeersConfig
from cluster.peering.hop import Hop, Outcome
from cluster.peering.messages import GET, PLAIN, encode_value
from cluster.requests import Source, State
from nodes import CACHES, captured, caught_up, read, until
from peer_process import QUICK, hello
from peers.errors import MessageInvalid, MessageTooLarge
from peers.members import Address
from peers.service import Service
from places import LOOPBACK, Place, answering, configs, members, named, owned
from snapring.errors import (
    ArgumentInvalid,
    CacheUnknown,
    NodeStopping,
    Overloaded,
    QueryFailed,
    SnapringError,
)
from test_forwarding import BAD, processes
from test_forwarding_beliefs import OLD, PEER, Peer, asking, never, raising, saying


@asynccontextmanager
async def nodes(url: str, count: int = 2) -> AsyncIterator[list[Place]]:
    """Nodes on one database, each with all that the others loaded known to it."""
    async with captured(url), members(configs(url, count, caches=(*CACHES, *BAD))) as places:
        yield places


class Asked:
    """A plain read that has begun."""

    def __init__(self, here: Place, key: str) -> None:
        self.came: list[Outcome] = []
        hop = here.reads.forward(key.encode())
        assert hop is not None
        self.hop: Hop = hop
        hop.begin(self.came.append)

    async def outcome(self) -> bytes | None:
        """What comes of it; an error is raised."""
        await until(lambda: bool(self.came))
        (come,) = self.came
        if isinstance(come, SnapringError):
            raise come
        return come if come is None or isinstance(come, bytes) else await come


async def plain(here: Place, key: str) -> bytes | None:
    """The value of ``key``."""
    return await Asked(here, key).outcome()


def under_way(here: Place, name: str) -> int:
    """Calls of this node that ``name`` has not answered."""
    channel = here.membership.channel(name)
    assert channel is not None
    return len(channel._outbox)


async def test_the_owner_answers_what_it_has_and_loads_what_it_has_not(database: str) -> None:
    """Also that there is no row; nothing is loaded here."""
    async with nodes(database) as (here, there):
        key, missing = owned(here, there.name), owned(here, there.name, first=1000)
        at_owner = (await there.read(key)).value
        await caught_up(there.node)
        assert await plain(here, key) == at_owner is not None
        assert (there.answers.at_once, there.answers.later) == (1, 0)
        assert await plain(here, missing) is None
        assert (here.loads, there.loads, there.answers.later) == (0, 2, 1)
        assert (here.reads.forwarded, here.reads.owner_answers, here.reads.fallbacks) == (2, 2, 0)


async def test_what_is_not_plain_goes_another_way(database: str) -> None:
    """One's own, what memory may have, and texts that must be parsed first."""
    async with nodes(database) as (here, there):
        far = owned(here, there.name)
        await read(here.node, far)
        texts = ("user:%41", "acme/user:1", "{user:1}@T", "nobody:1", "user:é", "")
        for key in (owned(here, here.name), far, *texts):
            assert here.reads.forward(key.encode()) is None, key


async def test_a_node_that_stops_and_one_alone_forward_nothing(database: str) -> None:
    """The door's own way tells the client."""
    async with nodes(database) as (here, there):
        key = owned(here, there.name).encode()
        here.node._stopping = True
        assert here.reads.forward(key) is None
        assert there.node.forward(key) is None


async def test_an_older_peer_is_asked_as_ever(database: str) -> None:
    """It knows no plain questions."""
    peer = Peer(says=raising(NodeStopping("no")))

    def older() -> object:
        return replace(hello(PEER), newest=1)

    service = Service(Address(host=LOOPBACK, port=0), handler=peer, hello=older, bounds=QUICK)  # type: ignore[arg-type]
    await service.start()
    there = {PEER: Address(host=LOOPBACK, port=service.port)}
    async with captured(database), members(configs(database, 1), others=there) as (here,):
        key = owned(here, PEER)
        assert here.reads.forward(key.encode()) is None
        assert (await here.read(key)).source is Source.LOAD
        assert [call.kind for call in peer.heard] == [GET]
        await service.stop(0.0)


async def test_an_error_about_the_request_is_the_answer(database: str) -> None:
    """Nobody else is asked, and nothing loaded here."""
    async with nodes(database) as places:
        for key, error in (("ratio:7", QueryFailed), ("user:1:2", ArgumentInvalid)):
            here = next(place for place in places if place.owner(key) != place.name)
            with pytest.raises(error):
                await plain(here, key)
            assert (here.reads.hops_failed, here.reads.fallbacks, here.loads) == (0, 0, 0)


async def test_where_the_owner_fails_the_backup_answers(database: str) -> None:
    """The owner is not asked again."""
    errors = NodeStopping("n"), Overloaded("o", retry_after_s=1.0), SnapringError("?"), MessageInvalid("m")
    owner, backup = Peer(), Peer(says=raising(QueryFailed("the backup's verdict")))
    async with captured(database), answering(named(1), owner) as one, answering(named(2), backup) as two:
        there = {named(n): Address(host=LOOPBACK, port=at.port) for n, at in ((1, one), (2, two))}
        async with members(configs(database, 1), others=there) as (here,):
            key = owned(here, named(1), named(2))
            for error in errors:
                owner.says = raising(error)
                with pytest.raises(QueryFailed):
                    await plain(here, key)
            assert [call.kind for call in (*owner.heard, *backup.heard)] == [PLAIN] * 4 + [GET] * 4
            assert (here.reads.hops_failed, here.reads.fallbacks, here.loads) == (4, 0, 0)


async def test_what_is_no_answer_is_loaded_here(database: str) -> None:
    """Be it no message, or the word of a peer that is configured otherwise."""
    broken: list[Callable[[], bytes]] = [
        lambda: b"",
        lambda: b"\x04" + encode_value(State.FRESH, b"peer", 0.0)[1:],
        lambda: encode_value(State.FRESH, None, 0.0) + b"peer",
        lambda: encode_value(State.FRESH, b"peer", nan),
        lambda: encode_value(State.FRESH, b"peer", -0.5),
    ]
    other = [raising(CacheUnknown("c")), raising(MessageTooLarge("l"))]
    peer = Peer()
    async with asking(database, peer, PeersConfig(breaker_failures=10)) as (here, key):
        for peer.says in (*broken, *other):
            here.node.store.clear()
            assert await plain(here, key) == (await read(here.node, key)).value
        assert (here.reads.hops_failed, here.reads.fallbacks, here.loads, len(peer.heard)) == (5, 7, 7, 7)


@pytest.mark.parametrize(
    ("state", "age_s"), [(State.FRESH, inf), (State.FRESH, 6.0), (State.STALE, 596.0)], ids=str
)
async def test_what_became_too_old_on_the_way_is_asked_for_with_its_snapshot(
    database: str, state: State, age_s: float
) -> None:
    """The time it took is part of its age. Where the snapshot is too old as well, it is loaded here."""
    peer = Peer(takes_s=5.0)
    async with asking(database, peer) as (here, key):
        full = saying(here, age_s=60.0, as_of=OLD)
        peer.says = lambda: encode_value(state, b"peer", age_s) if peer.heard[-1].kind == PLAIN else full()
        assert await plain(here, key) == (await read(here.node, key)).value
        assert [call.kind for call in peer.heard] == [PLAIN, GET]
        assert (here.reads.unfit, here.reads.fallbacks, here.loads) == (1, 1, 1)


async def test_what_is_young_enough_on_arrival_is_the_answer(database: str) -> None:
    """A stale one as far as the cache allows."""
    peer = Peer(takes_s=5.0)
    async with asking(database, peer) as (here, key):
        for state, age_s in ((State.FRESH, 1.0), (State.STALE, 590.0)):
            peer.says = partial(encode_value, state, b"peer", age_s)
            asked = Asked(here, key)
            assert await asked.outcome() == b"peer"
            assert (asked.hop.key, asked.hop.state, asked.hop.age_s) == (key.encode(), state, age_s)
        stale = here.node.store.tallies.total("owner_stale")
        assert (here.loads, here.reads.owner_answers, stale) == (0, 2, 1)


async def test_who_leaves_frees_the_place_at_both_ends(database: str) -> None:
    """Nothing comes any more."""
    cancelled = asyncio.Event()

    async def waiting() -> bytes:
        try:
            return await never()
        finally:
            cancelled.set()

    peer = Peer(says=waiting)
    async with asking(database, peer) as (here, key):
        asked = Asked(here, key)
        await until(lambda: len(peer.heard) == 1)
        asked.hop.cancel()
        await cancelled.wait()
        assert (under_way(here, PEER), asked.came) == (0, [])


async def test_an_answer_that_comes_too_late_is_nobodys(database: str) -> None:
    """It was loaded here when the call's time was over; the next one is asked for anew."""
    release = asyncio.Event()

    async def late() -> bytes:
        await asyncio.shield(asyncio.create_task(release.wait()))
        return encode_value(State.FRESH, b"late", 0.0)

    peer = Peer(says=late)
    async with asking(database, peer) as (here, key):
        here.reads._plain_timeout_s = 0.05
        assert await plain(here, key) == (await read(here.node, key)).value
        assert (here.reads.hops_failed, here.reads.fallbacks) == (1, 1)
        here.node.store.clear()
        here.reads._plain_timeout_s = here.node.config.request_timeout_s
        release.set()
        peer.says = lambda: encode_value(State.FRESH, b"next", 0.0)
        assert await plain(here, key) == b"next"


async def test_those_under_way_survive_the_owners_death(database: str) -> None:
    """Each gets its answer from somewhere else."""
    async with processes(database) as (here, (first, _)):
        keys = [f"user:{n}" for n in range(1, 31) if here.owner(f"user:{n}") == first.name]
        first.pause()
        asked = [Asked(here, key) for key in keys]
        await until(lambda: here.membership.channel(first.name)._outbox.under_way == len(keys))  # type: ignore[union-attr]
        asked.pop().hop.cancel()
        first.kill9()
        values = await asyncio.gather(*(each.outcome() for each in asked))
        assert values == [(await read(here.node, key)).value for key in keys[:-1]]


async def test_those_that_cannot_be_sent_go_elsewhere_at_once(database: str) -> None:
    """The owner is known and cannot be reached."""
    async with processes(database) as (here, (first, _)):
        key = owned(here, first.name)
        asked = SimpleNamespace(hop=here.reads.forward(key.encode()))
        first.kill9()
        channel = here.membership.channel(first.name)
        assert channel is not None
        await until(lambda: not channel.reachable)
        came: list[Outcome] = []
        asked.hop.begin(came.append)
        assert len(came) == 1
        assert await came[0] == (await read(here.node, key)).value  # type: ignore[misc]
