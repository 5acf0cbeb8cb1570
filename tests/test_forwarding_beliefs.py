"""What a node makes of what a peer answers: peers here say what a test wants, the node behind is real."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import NoReturn

import psycopg
import pytest

from cluster.config import CacheConfig, PeersConfig
from cluster.peering.messages import encode_reply
from cluster.requests import STRONG, AtLeast, Bounded, Consistency, Exactly, Reply, Source, State
from cluster.snapshots import Snapshot
from nodes import CACHES, WITHIN_S, captured, until, value_of
from peer_process import QUICK, STEADY
from peers.bounds import Bounds
from peers.errors import MessageInvalid, MessageTooLarge
from peers.inbox import Asker
from peers.members import Address
from peers.wire import Call
from places import FAR, LOOPBACK, Answer, Place, answering, configs, members, owned
from snapring.errors import (
    ArgumentInvalid,
    CacheRefused,
    CacheUnknown,
    CatalogChanging,
    DeadlineExceeded,
    NodeStopping,
    Overloaded,
    QueryFailed,
    QueryTimeout,
    SnapringError,
    SnapshotUnavailable,
    TokenAhead,
    TokenForeign,
    TokenInvalid,
    TooManyRows,
    Unavailable,
    VersionMismatch,
    WriteUncertain,
)

PEER = "node-1"
STALING = (replace(CACHES[0], max_staleness_s=10.0, stale_if_error_s=600.0),)
OLD = Snapshot(1, 1)


@dataclass(slots=True)
class Peer:
    """Answers what it is told to, and takes as long as it says, by the asker's clock."""

    says: Callable[[], Answer] = bytes
    takes_s: float = 0.0
    now_s: float = 0.0
    heard: list[Call] = field(default_factory=list)

    def __call__(self, call: Call, _: Asker) -> Answer:
        self.heard.append(call)
        self.now_s += self.takes_s
        return self.says()

    def clock(self) -> float:
        """What the asker takes for the time: it passes while this peer answers."""
        return monotonic() + self.now_s


@asynccontextmanager
async def asking(
    url: str,
    peer: Peer,
    peers: PeersConfig = FAR,
    caches: tuple[CacheConfig, ...] = STALING,
    bounds: Bounds = STEADY,
) -> AsyncIterator[tuple[Place, str]]:
    """A node that knows of ``peer``, and a key that this owns."""
    async with captured(url), answering(PEER, peer) as service:
        there = {PEER: Address(host=LOOPBACK, port=service.port)}
        mine = configs(url, 1, caches=caches, request_timeout_s=WITHIN_S)
        async with members(mine, others=there, peers=peers, bounds=bounds, clock=peer.clock) as (here,):
            yield here, owned(here, PEER)


def saying(here: Place, **changes: object) -> Callable[[], bytes]:
    """An answer of now, but for ``changes``."""
    timeline = here.node.timeline
    assert timeline.watermark is not None
    assert timeline.incarnation is not None
    reply = Reply(
        value=b"\xa4peer",
        as_of=timeline.watermark,
        incarnation=timeline.incarnation,
        age_s=0.0,
        state=State.FRESH,
        source=Source.LOCAL,
    )
    return lambda: encode_reply(replace(reply, **changes))  # type: ignore[arg-type]


def raising(error: BaseException) -> Callable[[], NoReturn]:
    """A peer that fails so."""

    def fail() -> NoReturn:
        raise error

    return fail


async def never() -> bytes:
    """No answer."""
    await asyncio.Event().wait()
    return b""


async def test_the_time_that_an_answer_took_is_part_of_its_age(database: str) -> None:
    """As long as that is within the cache's ``max_staleness``."""
    peer = Peer(takes_s=5.0)
    async with asking(database, peer) as (here, key):
        peer.says = saying(here, age_s=0.1)
        reply = await here.read(key)
        assert (value_of(reply), reply.source) == ("peer", Source.PEER)
        assert 5.1 <= reply.age_s < 10.0


async def test_an_answer_that_became_too_old_on_the_way_is_loaded_here(database: str) -> None:
    """It was fresh when it was sent."""
    peer = Peer(takes_s=5.0)
    async with asking(database, peer) as (here, key):
        peer.says = saying(here, age_s=6.0, as_of=OLD)
        assert (await here.read(key)).source is Source.LOAD
        assert (here.reads.unfit, len(peer.heard)) == (1, 1)


async def test_a_stale_answer_stays_one(database: str) -> None:
    """With its true age."""
    peer = Peer(takes_s=5.0)
    async with asking(database, peer) as (here, key):
        peer.says = saying(here, age_s=30.0, state=State.STALE)
        reply = await here.read(key)
        assert (value_of(reply), reply.state, here.loads) == ("peer", State.STALE, 0)
        assert reply.age_s >= 35.0


@pytest.mark.parametrize("asked", ["at least", "floor", "exactly", "strong"])
async def test_an_answer_from_before_what_was_asked_is_loaded_here(database: str, asked: str) -> None:
    """Whatever the peer thought it was asked."""
    peer = Peer()
    async with asking(database, peer) as (here, key):
        timeline = here.node.timeline
        assert timeline.watermark is not None
        assert timeline.incarnation is not None
        seen = AtLeast(timeline.watermark, timeline.incarnation)
        consistency: Consistency = {
            "at least": seen,
            "floor": Bounded(seen),
            "exactly": Exactly(seen.position, seen.incarnation),  # type: ignore[arg-type]
            "strong": STRONG,
        }[asked]
        peer.says = saying(here, as_of=OLD, age_s=5.0 if asked == "strong" else 0.0)
        assert value_of(await here.read(key, consistency)) != "peer"
        assert here.reads.unfit == 1


async def test_an_answer_of_an_incarnation_that_is_over_does_not_outlive_ones_own_write(
    database: str,
) -> None:
    """The owner has not noticed yet that the database was replaced; the asker has."""
    peer = Peer()
    async with asking(database, peer) as (here, key):
        timeline = here.node.timeline
        assert timeline.watermark is not None
        assert timeline.incarnation is not None
        peer.says = saying(here, incarnation=timeline.incarnation ^ 1)
        own = Bounded(AtLeast(timeline.watermark, timeline.incarnation))
        assert (await here.read(key, own)).source is Source.LOAD


@pytest.mark.parametrize(
    "error",
    [
        CacheUnknown("not here"),
        DeadlineExceeded("before its time"),
        MessageInvalid("what was that"),
        MessageTooLarge("big"),
        NodeStopping("ask another"),
        Overloaded("full", retry_after_s=1.0),
        SnapringError("no idea"),
        TokenForeign("of another incarnation"),
        TokenInvalid("of another secret"),
        Unavailable("no database"),
        VersionMismatch("a key", version=1),
        WriteUncertain("a write"),
        ZeroDivisionError("a defect"),
    ],
)
async def test_a_failure_of_the_peers_is_no_answer(database: str, error: Exception) -> None:
    """The key is loaded here."""
    peer = Peer(says=raising(error))
    async with asking(database, peer) as (here, key):
        assert (await here.read(key)).source is Source.LOAD
        assert (len(peer.heard), here.loads, here.reads.fallbacks) == (1, 1, 1)


@pytest.mark.parametrize(
    "error",
    [
        ArgumentInvalid("no number"),
        CacheRefused("not exact"),
        CatalogChanging("again"),
        QueryFailed("division by zero"),
        QueryTimeout("too slow"),
        SnapshotUnavailable("too old"),
        TokenAhead("not yet"),
        TooManyRows("a million"),
    ],
)
async def test_an_error_about_the_request_is_the_answer(database: str, error: SnapringError) -> None:
    """It is raised as it was, and nothing is loaded."""
    peer = Peer(says=raising(error))
    async with asking(database, peer) as (here, key):
        with pytest.raises(type(error), match=str(error)):
            await here.read(key)
        assert here.loads == 0


@pytest.mark.parametrize("said", [b"", b"\x90", b"\xc0", b"garbage", b"\x96" + b"\xc0" * 6])
async def test_bytes_that_are_no_answer_are_none(database: str, said: bytes) -> None:
    """Least of all "no row"."""
    async with asking(database, Peer(says=lambda: said)) as (here, key):
        reply = await here.read(key)
        assert (reply.source, value_of(reply) is not None) == (Source.LOAD, True)


async def test_a_peer_that_is_at_work_is_waited_for_beyond_a_hop(database: str) -> None:
    """It is alive, its pulse says so: what takes long there takes as long here, is done once, and is no older for it."""
    peer, going_on = Peer(), asyncio.Event()

    async def late() -> bytes:
        await going_on.wait()
        return saying(here)()

    peer.says = late
    hop, caches = PeersConfig(hop_timeout_s=0.05), (replace(CACHES[0], max_staleness_s=0.1),)
    async with asking(database, peer, hop, caches, QUICK) as (here, key):
        reading = asyncio.create_task(here.read(key))
        channel = here.membership.channel(PEER)
        assert channel is not None
        await until(lambda: peer.heard and channel.traffic.batches > 3)  # two pulses, each longer than a hop
        assert not reading.done()
        going_on.set()
        assert (await reading).source is Source.PEER
        assert (len(peer.heard), here.loads, here.reads.hops_failed) == (1, 0, 0)
        assert peer.heard[0].timeout_s > 1.0, "its request's time, not a hop's"


async def test_a_silent_peer_does_not_outlast_the_deadline(database: str) -> None:
    """Nor is its key loaded here then, nor is it the peer's fault."""
    peer = Peer(says=never)
    async with asking(database, peer) as (here, key), asyncio.timeout(10.0):
        with pytest.raises(DeadlineExceeded):
            await here.read(key, within_s=0.1)
        assert peer.heard[0].timeout_s <= 0.1
        assert here.reads.fallbacks == 0, "a second load of what one loads already"
        assert here.reads.breakers.states() == {}


async def test_whoever_leaves_takes_the_question_back(database: str) -> None:
    """The peer's work on it is cancelled."""
    peer = Peer(says=never)
    async with asking(database, peer) as (here, key):
        reading = asyncio.create_task(here.read(key))
        channel = here.membership.channel(PEER)
        assert channel is not None
        while not peer.heard:
            await asyncio.sleep(0.001)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert (here.loads, len(channel._outbox)) == (0, 0)


async def test_an_owner_that_alone_lost_postgres_fails_nobody(database: str) -> None:
    """Postgres can be reached from here; where it cannot, that is said at once, and nobody else is asked."""
    peer = Peer(says=raising(Unavailable("no database")))
    async with asking(database, peer) as (here, key):
        assert (await here.read(key)).source is Source.LOAD
        here.node.store.clear()
        here.node.breaker._open(monotonic() + WITHIN_S)
        with pytest.raises(Unavailable, match="out of reach"):
            await here.read(key)
        assert (len(peer.heard), here.loads, here.reads.hops_failed) == (2, 1, 1)


async def test_only_so_many_reads_at_once_are_taken_over(database: str) -> None:
    """What others owned must not fall upon this node all at once; the rest is told when to come again."""
    peer = Peer(says=raising(Unavailable("no database")))
    async with asking(database, peer, replace(FAR, fallbacks=2)) as (here, _):
        keys = [f"user:{n}" for n in range(1, 200) if here.owner(f"user:{n}") == PEER][:5]
        async with await psycopg.AsyncConnection.connect(database) as locking:
            await locking.execute("LOCK TABLE users")
            reads = [asyncio.create_task(here.read(each)) for each in keys]
            await until(lambda: here.reads.takeovers.refused == 3)
            assert here.reads.takeovers.under_way == 2
        found = await asyncio.gather(*reads, return_exceptions=True)
        refused = [each for each in found if isinstance(each, Overloaded)]
        assert (len(refused), here.reads.takeovers.under_way) == (3, 0)
        assert refused[0].retry_after_s > 0.0


async def test_a_peer_that_fails_again_and_again_is_asked_no_more(database: str) -> None:
    """But for a probe now and then; once that is answered it is asked as before."""
    peer = Peer(says=raising(ZeroDivisionError("a defect")))
    config = replace(FAR, breaker_failures=3, breaker_reset_s=1000.0, breaker_window_s=2000.0)
    async with asking(database, peer, config) as (here, _):
        keys = [f"user:{n}" for n in range(1, 500) if here.owner(f"user:{n}") == PEER][:12]
        for each in keys[:10]:
            assert (await here.read(each)).source is Source.LOAD
        assert (len(peer.heard), here.reads.breakers.skipped) == (3, 7)
        assert "breaker=open" in str(here.reads.describe()["peers"]["peer0"])
        peer.now_s += 1000.0
        peer.says = saying(here)
        within_s = peer.now_s + WITHIN_S
        sources = [(await here.read(each, within_s=within_s)).source for each in keys[10:]]
        assert sources == [Source.PEER, Source.PEER]
        assert "breaker=closed" in str(here.reads.describe()["peers"]["peer0"])


async def test_an_error_about_the_request_is_a_sign_of_life(database: str) -> None:
    """It closes the breaker as a value does; a deadline that was too short says nothing."""
    peer = Peer(says=raising(ZeroDivisionError("a defect")))
    config = replace(FAR, breaker_failures=1, breaker_reset_s=1000.0, breaker_window_s=2000.0)
    async with asking(database, peer, config) as (here, key):
        await here.read(key)
        for says, state in ((never, "half-open"), (raising(QueryFailed("division by zero")), "closed")):
            here.node.store.clear()
            peer.now_s += 1000.0
            peer.says = says
            with pytest.raises((DeadlineExceeded, QueryFailed)):
                await here.read(key, within_s=peer.now_s + 0.05)
            assert here.reads.breakers.states() == {PEER: state}
