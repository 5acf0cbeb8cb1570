"""What a node answers to its peers out of memory, at once, and what it leaves to a read."""

import asyncio
from dataclasses import dataclass, replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config import CacheConfig
from cluster.entries import Admission, Batch, Change, Entry
from cluster.node import Node
from cluster.peering.answering import Answering
from cluster.peering.messages import (
    GET,
    PLAIN,
    Get,
    decode_reply,
    decode_value,
    definition,
    encode_get,
    encode_plain,
)
from cluster.requests import BOUNDED, STRONG, AtLeast, Bounded, Consistency, Reply, Source, State
from cluster.snapshots import Snapshot
from cluster.tokens import Ticket
from discoveries import Clock
from nodes import CACHES, config
from peer_process import hello
from peers.errors import MessageInvalid
from peers.inbox import Asker
from peers.members import Member
from peers.membership import Membership
from peers.wire import Call
from places import joined
from snapring.errors import CacheUnknown, SnapringError

USER = CACHES[0]
INCARNATION = 2**64 - 1
FIRST, NEXT = Snapshot(100, 100), Snapshot(200, 200)


@dataclass(slots=True)
class Setup:
    """A node that has one entry, of a change with the tag 7, and is never run."""

    node: Node
    membership: Membership
    answers: Answering
    clock: Clock
    entry: Entry

    def ask(self, get: Get, *, epoch: bytes | None = None) -> Reply | None:
        """The answer if it is given at once."""
        asker = Asker(
            hello=hello("asker"), epoch=self.membership.epoch if epoch is None else epoch, version=1
        )
        answer = self.answers(Call(GET, encode_get(get), 1.0), asker)
        if isinstance(answer, bytes):
            return decode_reply(answer, since_s=0.0, source=Source.PEER)
        answer.close()
        return None

    def ask_plainly(self, cache: CacheConfig = USER) -> tuple[State, bytes | None, float] | None:
        """The value if it is given at once."""
        asker = Asker(hello=hello("asker"), epoch=self.membership.epoch, version=2)
        answer = self.answers(Call(PLAIN, encode_plain(b"user:7", definition(cache)), 1.0), asker)
        if isinstance(answer, bytes):
            return decode_value(answer)
        answer.close()
        return None

    def follow(self, snapshot: Snapshot, *changes: Change) -> None:
        """The feed brings this, now."""
        self.node.timeline.apply(
            Batch(incarnation=INCARNATION, snapshot=snapshot, sent_s=self.clock(), changes=changes)
        )
        self.node._polled()


@pytest.fixture
def setup() -> Setup:
    """The node is as fresh as can be."""
    clock = Clock()
    node = Node(config("postgresql:///nowhere"), clock=clock)
    membership = joined("node-0", {Member(name="node-0"): None})  # type: ignore[dict-item]
    entry = Entry(key=b"user:7", cache=USER, value=b"value", snapshot=FIRST, loaded_s=clock(), tags=(7,))
    node.timeline.restart(INCARNATION, FIRST, clock())
    assert node.timeline.admit(entry, INCARNATION) is Admission.OPEN
    made = Setup(node, membership, Answering(node, membership, clock), clock, entry)
    made.follow(FIRST)
    return made


def asking(consistency: Consistency = BOUNDED, cache: CacheConfig = USER) -> Get:
    """A question about the entry."""
    return Get(key=b"user:7", definition=definition(cache), consistency=consistency)


def test_an_entry_is_answered_at_once_and_as_of_the_watermark(setup: Setup) -> None:
    """With how long ago that was current; the read is a hit and a use of the entry."""
    setup.follow(NEXT)
    setup.clock.now_s += 0.25
    assert setup.ask(asking()) == Reply(
        value=b"value", as_of=NEXT, incarnation=INCARNATION, age_s=0.25, state=State.FRESH, source=Source.PEER
    )  # fmt: skip
    assert (setup.node.hits, setup.answers.at_once, setup.entry.frequency > 0) == (1, 1, True)


def test_a_plain_question_is_answered_with_the_value_and_its_age(setup: Setup) -> None:
    """Which is the watermark's; the read is a hit and a use of the entry."""
    setup.follow(NEXT)
    setup.clock.now_s += 0.25
    assert setup.ask_plainly() == (State.FRESH, b"value", 0.25)
    assert (setup.node.hits, setup.answers.at_once, setup.entry.frequency > 0) == (1, 1, True)


def test_a_plain_question_is_answered_by_open_entries_alone(setup: Setup) -> None:
    """Not by one that has ended, nor by one whose life is over."""
    setup.entry.until_s = setup.clock() + 0.5
    assert setup.ask_plainly() is not None
    setup.clock.now_s += 0.5
    assert setup.ask_plainly() is None
    setup.entry.until_s = inf
    setup.follow(NEXT, Change(xid=150, tag=7))
    assert setup.ask_plainly() is None


def test_a_plain_question_is_not_answered_once_the_feed_is_behind(setup: Setup) -> None:
    """By more than ``max_staleness``, or by nobody knows how much; an entry may know better by itself."""
    setup.clock.now_s += USER.max_staleness_s + 0.001
    assert setup.ask_plainly() is None
    setup.clock.now_s -= USER.max_staleness_s
    setup.node.timeline.suspend()
    assert setup.ask_plainly() == (State.FRESH, b"value", pytest.approx(0.001))


def test_a_plain_question_about_another_cache_is_refused(setup: Setup) -> None:
    """Though the entry is here."""
    with pytest.raises(CacheUnknown):
        setup.ask_plainly(replace(USER, sql="SELECT 1"))
    assert setup.answers.differing == 1


def test_an_entry_that_has_ended_is_not_answered(setup: Setup) -> None:
    """The key is loaded again."""
    setup.follow(NEXT, Change(xid=150, tag=7))
    assert setup.ask(asking()) is None
    assert setup.answers.later == 1


def test_an_entry_whose_life_is_over_is_not_answered(setup: Setup) -> None:
    """Although nothing has changed."""
    setup.entry.until_s = setup.clock() + 0.5
    assert setup.ask(asking()) is not None
    setup.clock.now_s += 0.5
    assert setup.ask(asking()) is None


def test_an_entry_is_not_answered_once_the_feed_is_behind(setup: Setup) -> None:
    """By more than the cache's ``max_staleness``."""
    setup.clock.now_s += USER.max_staleness_s + 0.001
    assert setup.ask(asking()) is None


@pytest.mark.parametrize(
    "asked", [STRONG, AtLeast(Ticket(150), INCARNATION), Bounded(AtLeast(Ticket(150), INCARNATION))]
)
def test_more_than_the_entry_can_promise_is_not_answered_at_once(setup: Setup, asked: Consistency) -> None:
    """What it can promise is, once the feed is there."""
    setup.clock.now_s += 0.01
    assert setup.ask(asking(asked)) is None
    setup.follow(NEXT)
    assert setup.ask(asking(asked)) is not None


def test_a_cache_with_other_settings_is_refused_though_the_entry_is_here(setup: Setup) -> None:
    """Its value would not mean what the asker means."""
    for consistency in (BOUNDED, AtLeast(Ticket(50), INCARNATION)):
        with pytest.raises(CacheUnknown):
            setup.ask(asking(consistency, replace(USER, sql="SELECT 1")))
    assert setup.answers.differing == 2


def test_a_question_is_answered_whatever_the_askers_ring(setup: Setup) -> None:
    """The difference is counted."""
    assert setup.ask(asking(), epoch=b"another") is not None
    assert setup.ask(asking()) is not None
    assert setup.membership.mismatches == 1


def test_calls_of_another_kind_are_refused(setup: Setup) -> None:
    """A newer version may have them."""
    with pytest.raises(MessageInvalid):
        setup.answers(Call(99, encode_get(asking()), 1.0), Asker(hello=hello("asker"), epoch=b"", version=1))


@pytest.fixture(scope="module")
def answers() -> Answering:
    """Of a node that has nothing."""
    node = Node(config("postgresql:///nowhere"))
    return Answering(node, joined("node-0", {}))


bodies = st.binary() | st.builds(
    encode_get,
    st.builds(
        Get,
        key=st.binary() | st.text(st.characters(codec="utf-8")).map(lambda arg: f"user:{arg}".encode()),
        definition=st.sampled_from([definition(USER), b"", b"12345678"]),
        consistency=st.sampled_from([BOUNDED, STRONG]),
    ),
)


@given(body=bodies, kind=st.sampled_from([GET, 0, 2**32]))
def test_whatever_comes_is_answered_or_refused_with_a_typed_error(
    answers: Answering, body: bytes, kind: int
) -> None:
    """No bytes of a peer are a defect here."""
    try:
        answer = answers(Call(kind, body, 1.0), Asker(hello=hello("asker"), epoch=b"", version=1))
    except SnapringError:
        return
    assert asyncio.iscoroutine(answer)
    answer.close()
