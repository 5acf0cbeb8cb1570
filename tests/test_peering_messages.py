"""What nodes ask and answer each other, as bytes, and what an asker believes of it."""

import struct
from dataclasses import replace
from math import inf, nan

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster.config import CacheConfig
from cluster.peering.acceptance import fits
from cluster.peering.messages import (
    Get,
    decode_get,
    decode_plain,
    decode_reply,
    decode_value,
    definition,
    encode_get,
    encode_plain,
    encode_reply,
    encode_value,
)
from cluster.requests import BOUNDED, STRONG, AtLeast, Bounded, Consistency, Exactly, Reply, Source, State
from cluster.snapshots import MAX_XID, Snapshot
from cluster.tokens import Ticket
from peers.errors import MessageInvalid
from peers.flat import pack, unpack

CACHE = CacheConfig(name="user", sql="SELECT 1", max_staleness_s=1.0, stale_if_error_s=60.0)
OLD, NOW, NEXT = Snapshot(90, 90), Snapshot(100, 105, (100, 103)), Snapshot(110, 110)
FLOOR = AtLeast(Ticket(101), 7)

xids = st.integers(1, MAX_XID)
incarnations = st.integers(0, 2**64 - 1)
ages = st.floats(0.0, allow_nan=False)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Any snapshot, of any number of running transactions."""
    bounds = sorted(draw(st.lists(xids, min_size=2, max_size=2)))
    width = bounds[1] - bounds[0]
    running = draw(st.sets(st.integers(0, width - 1), max_size=200)) if width else set()
    return Snapshot(bounds[0], bounds[1], tuple(bounds[0] + xid for xid in sorted(running)))


positions = snapshots() | st.builds(Ticket, st.integers(0, MAX_XID))
at_leasts = st.builds(AtLeast, positions, incarnations)
consistencies: st.SearchStrategy[Consistency] = (
    st.just(BOUNDED)
    | st.just(STRONG)
    | at_leasts
    | st.builds(Bounded, at_leasts)
    | st.builds(Exactly, snapshots(), incarnations)
)
gets = st.builds(
    Get, key=st.binary(max_size=1024), definition=st.binary(max_size=8), consistency=consistencies
)
replies = st.builds(
    Reply,
    value=st.none() | st.binary(),
    as_of=snapshots(),
    incarnation=incarnations,
    age_s=ages,
    state=st.sampled_from(State),
    source=st.just(Source.PEER),
    version=st.none() | st.integers(0, 2**53 - 1),
)
REPLY = Reply(
    value=b"v", as_of=NOW, incarnation=7, age_s=0.3, state=State.FRESH, source=Source.PEER, version=None
)


@given(gets)
def test_a_question_arrives_as_it_was_asked(get: Get) -> None:
    """Every consistency, with positions of full size."""
    assert decode_get(encode_get(get)) == get


@given(replies)
def test_an_answer_arrives_as_it_was_given(reply: Reply) -> None:
    """No row, an empty value and an unknown age included."""
    assert decode_reply(encode_reply(reply), since_s=0.0, source=Source.PEER) == reply


@given(replies, st.floats(0.0, 1e6))
def test_an_answer_is_older_by_all_the_time_that_its_asker_waited(reply: Reply, since_s: float) -> None:
    """Whatever part of it the peer took, and whatever its clock shows."""
    received = decode_reply(encode_reply(reply), since_s=since_s, source=Source.BACKUP)
    assert received == replace(reply, age_s=reply.age_s + since_s, source=Source.BACKUP)


@given(st.binary(max_size=1024), st.binary(min_size=8, max_size=8))
def test_a_plain_question_arrives_as_it_was_asked(key: bytes, meaning: bytes) -> None:
    """Whatever the key."""
    assert decode_plain(encode_plain(key, meaning)) == (key, meaning)


@given(st.sampled_from(State), st.none() | st.binary(), ages)
def test_a_value_arrives_as_it_was_given(state: State, value: bytes | None, age_s: float) -> None:
    """No row, an empty value and an unknown age included."""
    assert decode_value(encode_value(state, value, age_s)) == (state, value, age_s)


@given(st.binary(max_size=20))
@example(b"\0" * 8)
@example(b"\4" + b"\0" * 8)
@example(b"\2" + b"\0" * 8 + b"a value that is none")
@example(b"\0" + struct.pack("!d", nan))
@example(b"\0" + struct.pack("!d", -0.5))
def test_other_bytes_are_no_value(body: bytes) -> None:
    """What is read is what was written, or refused."""
    try:
        state, value, age_s = decode_value(body)
    except MessageInvalid:
        return
    assert age_s >= 0.0
    assert encode_value(state, value, age_s) == body


@given(st.binary() | st.lists(st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()).map(pack))  # fmt: skip
def test_other_bytes_are_refused(body: bytes) -> None:
    """With the error of a peer that sends what is no message, and no other."""
    for decode in (decode_get, lambda body: decode_reply(body, since_s=0.0, source=Source.PEER)):
        try:
            decode(body)
        except MessageInvalid:
            continue


@given(replies, st.integers(0, 5), st.sampled_from([True, "other", -1, 2**64 - 1, -0.5, nan, b"\0", None]))
@example(REPLY, 4, nan)
@example(REPLY, 4, -0.5)
@example(REPLY, 3, -1)
@example(REPLY, 5, -1)
@example(REPLY, 0, None)
def test_an_answer_with_a_wrong_field_is_refused_or_says_what_it_says(
    reply: Reply, place: int, field: bool | str | int | float | bytes | None
) -> None:
    """No field is ever taken for another, nor a value made up where one is missing."""
    fields = unpack(encode_reply(reply))
    fields[place] = field
    try:
        received = decode_reply(pack(fields), since_s=0.0, source=Source.PEER)
    except MessageInvalid:
        return
    assert unpack(encode_reply(received)) == fields


@pytest.mark.parametrize("kept", range(6))
def test_an_answer_that_is_cut_off_is_no_answer(kept: int) -> None:
    """A value that did not arrive is not "no row"."""
    fields = unpack(encode_reply(replace(REPLY, value=None)))
    with pytest.raises(MessageInvalid):
        decode_reply(pack(fields[:kept]), since_s=0.0, source=Source.PEER)


def test_what_a_newer_version_adds_is_passed_over() -> None:
    """On both sides, at the end."""
    get = Get(key=b"user:1", definition=b"12345678", consistency=STRONG)
    assert decode_get(pack([*unpack(encode_get(get)), "more"])) == get
    newer = pack([*unpack(encode_reply(REPLY)), "more"])
    assert decode_reply(newer, since_s=0.0, source=Source.PEER) == REPLY


@pytest.mark.parametrize(
    "change",
    [
        {"name": "person"},
        {"kind": "store"},
        {"sql": "SELECT 2"},
        {"single": True},
        {"depends": ("users",)},
        {"max_staleness_s": 2.0},
        {"stale_if_error_s": None},
        {"max_rows": 9},
        {"encoding": "json"},
    ],
)
def test_a_definition_tells_apart_what_means_something_else(change: dict[str, object]) -> None:
    """Each setting that changes an answer, or what is claimed of it."""
    assert definition(replace(CACHE, **change)) != definition(CACHE)  # type: ignore[arg-type]


def test_a_definition_is_the_same_for_what_means_the_same() -> None:
    """Settings of memory, and whether a number was written as an integer, mean nothing."""
    same = replace(CACHE, max_bytes=2**20, ttl_s=5.0, ttl_jitter=0.5, bulk_limit=7, max_staleness_s=1)
    assert definition(same) == definition(CACHE)
    assert len(definition(CACHE)) == 8


@pytest.mark.parametrize(
    ("asked", "change", "fit"),
    [
        (BOUNDED, {}, True),
        (BOUNDED, {"age_s": 1.0}, True),
        (BOUNDED, {"age_s": 1.001}, False),
        (BOUNDED, {"age_s": inf}, False),
        (BOUNDED, {"state": State.STALE, "age_s": 59.0}, True),
        (BOUNDED, {"state": State.STALE, "age_s": 61.0}, False),
        (Bounded(FLOOR), {}, True),
        (Bounded(FLOOR), {"as_of": OLD}, False),
        (Bounded(FLOOR), {"as_of": OLD, "state": State.STALE}, False),
        (Bounded(FLOOR), {"as_of": OLD, "incarnation": 6}, False),
        (Bounded(replace(FLOOR, incarnation=6)), {"as_of": OLD}, True),
        (STRONG, {}, True),
        (STRONG, {"age_s": 0.401}, False),
        (STRONG, {"state": State.STALE}, False),
        (AtLeast(NOW, 7), {"age_s": inf}, True),
        (AtLeast(NEXT, 7), {}, False),
        (AtLeast(Ticket(103), 7), {}, False),
        (AtLeast(Ticket(101), 7), {}, True),
        (AtLeast(Ticket(101), 7), {"state": State.STALE}, False),
        (AtLeast(Ticket(101), 6), {}, False),
        (Exactly(NOW, 7), {"age_s": inf}, True),
        (Exactly(OLD, 7), {}, False),
        (Exactly(NEXT, 7), {}, False),
        (Exactly(NOW, 6), {}, False),
        (Exactly(NOW, 7), {"state": State.STALE}, False),
    ],
)
def test_an_answer_must_fit_what_was_asked(asked: Consistency, change: dict[str, object], fit: bool) -> None:
    """Asked 0.2 s ago by a node of incarnation 7; 0.3 s of age make at most 0.2 s before it was asked."""
    reply = replace(REPLY, **change)  # type: ignore[arg-type]
    assert fits(reply, asked, cache=CACHE, since_s=0.2, incarnation=7) == fit


def test_without_stale_if_error_nothing_stale_fits() -> None:
    """However young."""
    cache = replace(CACHE, stale_if_error_s=None)
    stale = replace(REPLY, state=State.STALE, age_s=0.0)
    assert not fits(stale, BOUNDED, cache=cache, since_s=0.0, incarnation=7)
