"""The membership of real nodes that are told who is there: generations swapped whole, drains, bounds, an end."""

import asyncio
import threading
from collections.abc import Iterable
from dataclasses import replace

import pytest

from gatherings import HANDOFF_S, Attendant, agree, attending, gathering, tell, view
from peer_process import FAR_S, LATER, LOOPBACK, SLOW, until
from peers.errors import PeerUnreachable
from peers.kinship import fingerprints
from peers.members import Address, Member
from peers.ring import Ring

NOWHERE = Address(host=LOOPBACK, port=1)
SELDOM = 600.0


class Builds:
    """The rings that are computed: of whom, and on which threads. Each waits for ``gate``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: list[str] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        compute = Ring.of

        def computed(members: Iterable[Member]) -> Ring:
            members = sorted(members)
            self.threads.add(threading.get_ident())
            self.of.append(" ".join(member.name for member in members))
            assert self.gate.wait(FAR_S)
            return compute(members)

        monkeypatch.setattr(Ring, "of", computed)


async def settled(node: Attendant, looks: int = 5) -> None:
    """That many looks at what is known have passed."""
    looked = 0
    look = node.membership._outlook

    def counted() -> object:
        nonlocal looked
        looked += 1
        return look()

    node.membership._outlook = counted  # type: ignore[method-assign, assignment]
    await until(lambda: looked >= looks)
    node.membership._outlook = look  # type: ignore[method-assign]


async def test_a_node_that_knows_of_nobody_serves_at_once() -> None:
    """The ring is its own before it has run, and no view keeps it waiting."""
    node = Attendant("a")
    membership = node.membership
    assert (node.names, membership.epoch) == ("a", Ring.of([Member(name="a")]).hash)
    assert (membership.previous, membership.channel("a"), membership.channel("b")) == ((), None, None)
    async with attending("b") as other:
        await settled(other)
        assert (other.names, other.membership.changes) == ("b", 0)


async def test_nodes_with_the_same_view_have_the_same_ring_and_reach_each_other() -> None:
    """And none has a channel to itself."""
    async with gathering("a", "b", "c") as nodes:
        tell(nodes, view(*nodes))
        await until(lambda: agree(*nodes) and all(node.names == "a b c" for node in nodes))
        for node in nodes:
            assert node.membership.channel(node.name) is None
            others = [other.name for other in nodes if other is not node]
            assert [await node.ask(other, body=b"hello") for other in others] == [b"hello", b"hello"]


async def test_every_ring_that_is_seen_has_its_channels() -> None:
    """At no step of the loop is a member of the ring without one, whatever views come."""
    async with gathering("a", "b", "c", "d") as nodes:
        first, membership = nodes[0], nodes[0].membership
        seen = set()
        for size in (2, 4, 1, 3, 4, 2):
            first.views.put(view(*nodes[:size]))
            async with asyncio.timeout(FAR_S):
                while len(membership.ring.members) != size:
                    await asyncio.sleep(0)
                    seen.add(first.names)
                    ring, channels = membership.generation.ring, membership.generation.channels
                    assert {member.name for member in ring.members} <= channels.keys() | {"a"}
        assert seen == {"a", "a b", "a b c", "a b c d"}


async def test_a_channel_is_kept_where_its_member_stays_at_its_address() -> None:
    """Who moves gets another, and the old one ends with the answers to what was asked on it."""
    async with gathering("a", "b", "c") as (a, b, c), attending("c") as moved:
        a.views.put(view(a, b, c))
        await until(lambda: a.names == "a b c")
        staying, leaving, epoch = a.membership.channel("b"), a.membership.channel("c"), a.membership.epoch
        asked = asyncio.create_task(a.ask("c", SLOW, b"late"))
        await until(lambda: c.service.traffic.calls)
        a.views.put(view(a, b, moved))
        await until(lambda: a.membership.channel("c") is not leaving)
        assert await a.ask("c", body=b"elsewhere") == b"elsewhere"
        assert await asked == b"late"
        await until(lambda: c.service.askers == 0)
        assert (a.membership.channel("b"), a.membership.epoch, len(a.opened)) == (staying, epoch, 3)


async def test_a_closing_channel_is_waited_for_no_longer_than_the_bound() -> None:
    """Its calls then fail with the hop."""
    async with gathering("a", "b", closing_s=0.01) as (a, b), attending("b") as moved:
        a.views.put(view(a, b))
        await until(lambda: a.membership.channel("b"))
        asked = asyncio.create_task(a.ask("b", 2))
        await until(lambda: b.service.traffic.calls)
        a.views.put(view(a, moved))
        with pytest.raises(PeerUnreachable, match="closed"):
            await asked


async def test_who_cannot_be_reached_stays_in_the_ring() -> None:
    """Be it that it never was, or that it died without a word. Calls to it fail at once."""
    async with attending("a") as a:
        async with attending("b") as b:
            a.views.put({**view(a, b), Member(name="c"): NOWHERE})
            await until(lambda: a.names == "a b c" and "b" in a.membership._heard)
        channels = a.membership.generation.channels
        await until(lambda: not any(channel.reachable for channel in channels.values()))
        await settled(a)
        assert (a.names, a.membership.generation.channels) == ("a b c", channels)
        for name in ("b", "c"):
            with pytest.raises(PeerUnreachable):
                await a.ask(name)


async def test_a_node_that_drains_is_left_out_by_all_and_answers_still() -> None:
    """Its own ring too is the others'."""
    async with gathering("a", "b", "c") as nodes:
        tell(nodes, view(*nodes))
        await until(lambda: agree(*nodes) and nodes[0].names == "a b c")
        nodes[1].membership.drain()
        await until(lambda: agree(*nodes) and nodes[0].names == "a c")
        assert [node.names for node in nodes] == ["a c"] * 3
        assert await nodes[0].ask("b", body=b"a last answer") == b"a last answer"
        assert await nodes[1].ask("c", LATER, b"forwarded") == b"forwarded"


async def test_a_node_that_drains_says_so_before_it_has_another_ring() -> None:
    """Even one that knows of nobody: those who know of it leave it out."""
    async with attending("a") as a, attending("b", look_least_s=SELDOM) as b:
        a.views.put(view(a, b))
        await until(lambda: a.names == "a b" and "b" in a.membership._heard)
        b.membership.drain()
        await until(lambda: a.names == "a")
        assert b.names == "b"


async def test_a_node_alone_drains_in_its_own_ring() -> None:
    """Somebody must answer; so do all nodes of a cluster that ends as a whole."""
    async with gathering("a", "b") as nodes:
        nodes[0].membership.drain()
        await settled(nodes[0])
        assert nodes[0].names == "a"
        tell(nodes, view(*nodes))
        await until(lambda: agree(*nodes) and nodes[0].names == "b")
        nodes[1].membership.drain()
        await until(lambda: agree(*nodes) and nodes[0].names == "a b")


async def test_who_drained_and_went_stays_out_until_it_lives_again() -> None:
    """A view that still names it does not bring it back; its next hello does."""
    async with attending("a") as a:
        async with attending("b") as b:
            a.views.put(view(a, b))
            await until(lambda: a.names == "a b")
            address = b.address
            b.membership.drain()
            await until(lambda: a.names == "a")
        channel = a.membership.channel("b")
        assert channel is not None
        await until(lambda: not channel.reachable)
        a.views.put({**view(a), Member(name="b"): address, Member(name="c"): NOWHERE})
        await until(lambda: a.names == "a c")
        async with attending("b", port=address.port):
            await until(lambda: a.names == "a b c")


async def test_who_leaves_the_view_without_a_word_leaves_the_ring() -> None:
    """The way to it is kept for the hand-off, by the clock, and then closed."""
    async with gathering("a", "b", "c") as (a, b, c):
        a.views.put(view(a, b, c))
        await until(lambda: a.names == "a b c")
        before = a.membership.ring
        a.views.put(view(a, b))
        await until(lambda: a.names == "a b")
        assert a.membership.previous[0] is before
        await settled(a)
        assert await a.ask("c", body=b"what was yours") == b"what was yours"
        a.clock.now_s += HANDOFF_S
        assert a.membership.previous == ()
        await until(lambda: a.membership.channel("c") is None and c.service.askers == 0)
        assert a.membership.channel("b") is not None


async def test_the_ring_before_one_joined_is_that_of_the_others() -> None:
    """Not the one of itself alone that it began with. The ring before the next change is the one it had."""
    async with gathering("a", "b", "c") as (a, b, c):
        a.views.put(view(a))
        await settled(a)
        for node in (a, b):
            node.views.put(view(a, b))
        await until(lambda: a.names == b.names == "a b")
        assert a.membership.previous == b.membership.previous == (Ring.of([Member(name="a")]),)
        joined = b.membership.ring
        b.views.put(view(a, b, c))
        await until(lambda: b.names == "a b c")
        assert b.membership.previous[0] is joined


async def test_the_last_few_rings_are_kept_in_mind_each_for_its_time() -> None:
    """Newest first; no more than the bound, and none for longer than it."""
    async with attending("a", handoff_rings=2) as a:
        seen = []
        for number in range(4):
            seen.append(a.membership.ring)
            a.views.put({**view(a), Member(name=f"b{number}"): NOWHERE})
            await until(lambda number=number: a.names == f"a b{number}")
            a.clock.now_s += 1.0
        assert a.membership.previous == (seen[3], seen[2])
        a.clock.now_s += HANDOFF_S - 1.0
        assert a.membership.previous == ()
        assert a.membership.describe()["previous"] == []


async def test_a_burst_of_views_is_one_ring_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one is computed, in a thread, however many come: the last wins, and the node answers meanwhile."""
    async with gathering("a", "b", "c") as (a, b, c):
        a.views.put(view(a, b))
        await until(lambda: a.names == "a b")
        builds = Builds(monkeypatch)
        a.views.put(view(a, b, c))
        await until(lambda: builds.of)
        for number in range(50):
            a.views.put({**view(a, c), Member(name=f"d{number}"): NOWHERE})
        for _ in range(20):
            assert await a.ask("b", body=b"meanwhile") == b"meanwhile"
        assert (a.names, builds.of) == ("a b", ["a b c"])
        builds.gate.set()
        await until(lambda: a.names == "a c d49")
        await settled(a)
        assert builds.of == ["a b c", "a c d49"]
        assert threading.get_ident() not in builds.threads
        assert a.membership.changes == 3


async def test_an_epoch_that_differs_is_counted_and_looked_into() -> None:
    """The node that hears it finds who drains at once, instead of at its next look."""
    async with gathering("a", "b", look_most_s=SELDOM) as (a, b):
        tell([a, b], view(a, b))
        await until(lambda: a.names == b.names == "a b")
        await until(lambda: all(channel.peer for node in (a, b) for channel in node.opened))
        channel = a.membership.channel("b")
        assert channel is not None
        b.membership.drain()
        await until(lambda: b.names == "a")
        await until(lambda: channel.peer is not None and channel.peer.draining)
        assert (a.names, a.membership.mismatches) == ("a b", 0)
        await b.ask("a")
        await until(lambda: agree(a, b))
        assert (a.names, a.membership.mismatches) == ("a", 1)


async def test_the_own_epoch_is_no_mismatch() -> None:
    """And a storm of others makes no more looks than the bound allows."""
    async with attending("a", look_least_s=SELDOM, look_most_s=2 * SELDOM) as a:
        a.membership.mismatch(a.membership.epoch)
        assert a.membership.mismatches == 0
        looked = a.membership._outlook
        looks: list[object] = []
        a.membership._outlook = lambda: looks.append(1) or looked()  # type: ignore[method-assign, func-returns-value]
        for _ in range(1000):
            a.membership.mismatch(b"another")
            await asyncio.sleep(0)
        assert (a.membership.mismatches, len(looks)) == (1000, 1)


async def test_views_that_come_and_go_leave_nothing_behind() -> None:
    """No channel, no stream, no task more than the last view needs."""
    async with gathering("a", "b", "c", handoff_s=0.0) as (a, b, c):
        for _ in range(5):
            for names, nodes in (("a b c", (a, b, c)), ("a b", (a, b)), ("a c", (a, c))):
                a.views.put(view(*nodes))
                await until(lambda expected=names: a.names == expected)
        await until(lambda: (b.service.askers, c.service.askers) == (0, 1))
        await until(lambda: not a.membership._closing)
        await until(lambda: set(a.membership._heard) == {"c"})
        assert set(a.membership.generation.channels) == {"c"}


async def test_a_node_that_ends_closes_its_channels() -> None:
    """And its discovery; what was asked gets its answer first."""
    async with attending("b") as b:
        node = Attendant("a")
        running = asyncio.create_task(node.membership.run())
        node.views.put({Member(name="a"): NOWHERE, **view(b)})
        await until(lambda: node.membership.channel("b"))
        asked = asyncio.create_task(node.ask("b", SLOW, b"in time"))
        await until(lambda: b.service.traffic.calls)
        running.cancel()
        await asyncio.wait([running], timeout=FAR_S)
        assert (running.cancelled(), asked.done()) == (True, True)
        assert await asked == b"in time"
        assert (node.views.closed, node.membership.channel("b")) == (True, None)
        await until(lambda: b.service.askers == 0)


async def test_a_defect_ends_the_membership(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loudly, and with its channels closed: a node must not go on in a ring that no longer follows."""
    async with attending("b") as b:
        node = Attendant("a")
        running = asyncio.create_task(node.membership.run())
        node.views.put(view(b))
        await until(lambda: node.membership.channel("b"))
        monkeypatch.setattr(node.membership, "_outlook", lambda: 1 / 0)
        await asyncio.wait([running], timeout=FAR_S)
        assert isinstance(running.exception(), BaseExceptionGroup)
        await until(lambda: b.service.askers == 0)


async def test_the_cluster_can_be_described() -> None:
    """Who there is, its share of the slots, what it last said and how it is reached."""
    async with gathering("a", "b") as (a, b):
        a.views.put({**view(a, b), Member(name="c", zone="z"): NOWHERE})
        await until(lambda: a.names == "a b c")
        await until(lambda: a.membership.describe()["disagreeing"] == ["b"])
        described = a.membership.describe()
        rows = described["members"]
        assert isinstance(rows, list)
        assert [(row["name"], row["zone"], row["slots"] > 5000) for row in rows] == [
            ("a", "", True),
            ("b", "", True),
            ("c", "z", True),
        ]
        assert sum(row["share"] for row in rows) == 1.0
        assert (rows[1]["hello"]["epoch"], rows[1]["hello"]["draining"]) == (b.membership.epoch.hex(), False)
        assert (rows[1]["channel"]["connected"], rows[2]["channel"]["connected"]) == (True, False)
        assert (rows[0]["channel"], rows[2]["hello"], described["epoch"]) == (
            None,
            None,
            a.membership.epoch.hex(),
        )
        assert "member" in repr(a.membership)


async def test_one_who_drains_is_described_still() -> None:
    """Without a slot, while the view names it; and a node that no view names describes itself."""
    async with gathering("a", "b") as (a, b):
        a.views.put(view(b))
        b.membership.drain()
        await until(lambda: a.membership.changes >= 1 and a.names == "a")
        rows = a.membership.describe()["members"]
        assert isinstance(rows, list)
        assert [(row["name"], row["slots"], row["hello"]["draining"]) for row in rows] == [
            ("a", 16_384, False),
            ("b", 0, True),
        ]


async def test_the_first_view_is_waited_for_until_it_has_a_ring() -> None:
    """Or for as long as the caller likes."""
    async with gathering("a", "b") as (a, b):
        assert not await a.membership.settled(0.0)
        waiting = asyncio.create_task(a.membership.settled(FAR_S))
        a.views.put(view(a, b))
        assert await waiting
        assert a.names == "a b"


async def test_a_node_that_no_view_names_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """Until it has been named: it has another name than the one it is known by, or is not known yet."""
    async with gathering("a", "b") as (a, b):
        for _ in range(2):
            a.views.put(view(b))
        await until(lambda: a.names == "a b")
        await settled(a)
        assert caplog.text.count("the test names b and not this node, a") == 1
        a.views.put(view(a, b))
        a.views.put(view(b))
        await until(lambda: caplog.text.count("not this node") == 2)


async def test_who_has_another_secret_is_named_and_not_asked(caplog: pytest.LogCaptureFixture) -> None:
    """Once in the log, and in status until it has one in common."""

    def says(node: Attendant, *secrets: bytes) -> None:
        own = node.membership._make_hello
        told = fingerprints(secrets)
        node.membership._make_hello = lambda epoch, draining: replace(own(epoch, draining), secrets=told)

    async with gathering("a", "b", "c") as (a, b, c):
        says(a, b"one", b"two")
        says(b, b"three")
        says(c, b"two")
        a.views.put(view(a, b, c))
        shown = lambda: {row["name"]: row["secret"] for row in a.membership.describe()["members"]}  # type: ignore[index, attr-defined] # noqa: E731
        await until(lambda: shown() == {"a": "same", "b": "other", "c": "partial"})
        with pytest.raises(PeerUnreachable, match="none of this node's secrets"):
            await a.ask("b")
        assert await a.ask("c", body=b"ours") == b"ours"
        await settled(a)
        assert caplog.text.count("b has none of this node's secrets and is not asked") == 1
        says(b, b"one")
        await until(lambda: shown()["b"] == "same")
