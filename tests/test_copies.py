"""Entries that travel: what arrives is what was sent, and is judged like a load."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config import CacheConfig
from cluster.entries import Admission, Batch, Change, Entry, Timeline, Versioned
from cluster.peering.copies import (
    OVERHEAD_BYTES,
    Copy,
    copy_of,
    decode_copies,
    encode_copies,
    entry_of,
    size_of,
)
from cluster.snapshots import Snapshot
from cluster.store import Store
from cluster.tags import bulk_tag, table_tag
from cluster.writes import ABSENT
from peers.errors import MessageInvalid
from peers.flat import Field, pack

USERS = CacheConfig(name="users", sql="SELECT 1")
SETTINGS = CacheConfig(name="settings", kind="store")
MEANING = b"12345678"
FIELDS: tuple[Field, ...] = (b"users:1", MEANING, b"v", "100:100:", 7, bytes(9), None, None)
"""Of a copy, as they travel."""
TAGS = (-(2**63), 2**63 - 1, table_tag(2**32 - 1), bulk_tag(2**32 - 1))

snapshots = st.builds(
    lambda xmin, width, running: Snapshot(
        xmin, xmin + width, tuple(sorted(xmin + each for each in running if each < width))
    ),
    st.integers(1, 2**62),
    st.integers(0, 50),
    st.frozensets(st.integers(0, 49)),
)
copies = st.builds(
    Copy,
    key=st.binary(max_size=20),
    definition=st.binary(min_size=8, max_size=8),
    value=st.none() | st.binary(max_size=50),
    snapshot=snapshots,
    incarnation=st.integers(0, 2**64 - 1),
    tags=st.lists(st.sampled_from(TAGS) | st.integers(-(2**63), 2**63 - 1), max_size=4).map(tuple),
    ttl_s=st.floats(0, 1e9) | st.just(inf),
    version=st.none() | st.integers(0, 2**53 - 1),
)


def followed(*batches: Batch) -> Timeline:
    """A node that has followed the database from 100 on, through ``batches``."""
    timeline = Timeline(Store(2**20), log_retention_s=60.0, log_max_changes=100)
    timeline.restart(7, Snapshot(100, 100), 10.0)
    for batch in batches:
        timeline.apply(batch)
    return timeline


def batch(at: int, sent_s: float, *changes: Change) -> Batch:
    """A poll that brought ``changes``."""
    return Batch(incarnation=7, snapshot=Snapshot(at, at), sent_s=sent_s, changes=changes)


def kept(timeline: Timeline, at: int = 100, tags: tuple[int, ...] = (5,), until_s: float = inf) -> Entry:
    """An entry that was loaded at ``at``."""
    entry = Entry(
        key=b"users:1", cache=USERS, value=b"v", snapshot=Snapshot(at, at), loaded_s=10.0, tags=tags,
        until_s=until_s,
    )  # fmt: skip
    assert timeline.admit(entry, 7) is Admission.OPEN
    return entry


def sent(timeline: Timeline, entry: Entry, now_s: float = 20.0) -> Copy:
    """The copy that travels."""
    copy = copy_of(entry, timeline, MEANING, now_s)
    assert copy is not None
    return copy


@given(st.lists(copies, max_size=5))
def test_what_arrives_is_what_was_sent(many: list[Copy]) -> None:
    """Any key, value, tag and snapshot, and none of them."""
    assert list(decode_copies(encode_copies(many))) == many


@given(st.binary(max_size=80), st.lists(copies, min_size=1, max_size=2), st.integers(0, 200))
def test_anything_else_is_a_typed_error(rubbish: bytes, many: list[Copy], at: int) -> None:
    """Rubbish, and copies with a byte of them changed, are copies or `MessageInvalid`."""
    body = bytearray(encode_copies(many))
    body[at % len(body)] ^= 0x55
    for each in (rubbish, bytes(body), bytes(body[:at])):
        try:
            found = list(decode_copies(each))
        except MessageInvalid:
            continue
        assert list(decode_copies(encode_copies(found))) == found


@pytest.mark.parametrize(
    "fields",
    [(), (None, *FIELDS), (8.0, *FIELDS), (7, *FIELDS[:7]), (4, *FIELDS), (-8, *FIELDS), (8, *FIELDS, b"k")],
    ids=["none", "no count", "a fraction", "too few", "half of them", "less than none", "cut off"],
)
def test_what_is_counted_wrongly_is_refused(fields: tuple[Field, ...]) -> None:
    """Before a copy is put together of fields of two."""
    with pytest.raises(MessageInvalid, match="cut off"):
        decode_copies(pack(fields))


def test_tags_that_are_cut_off_are_refused() -> None:
    """What is left of one would be another."""
    with pytest.raises(MessageInvalid, match="a tag that is cut off"):
        decode_copies(pack((8, *FIELDS[:5], bytes(17), *FIELDS[6:])))


def test_what_newer_nodes_add_is_passed_over() -> None:
    """Of each copy: the fields known here come first."""
    (copy,) = decode_copies(pack((8, *FIELDS)))
    assert list(decode_copies(pack((9, *FIELDS, b"new", *FIELDS, None)))) == [copy, copy]


@pytest.mark.parametrize(("version", "kept_as"), [(None, ABSENT), (5, 5)])
def test_a_key_of_a_store_travels_with_its_version(version: int | None, kept_as: int) -> None:
    """That there is none is a version too; rows of a query have none."""
    copy = sent(followed(), kept(followed()))
    entry = entry_of(replace(copy, version=version), SETTINGS, followed(), 30.0)
    assert isinstance(entry, Versioned)
    assert entry.version == kept_as
    assert entry_of(copy, USERS, followed(), 30.0).version is None


def test_a_copy_counts_for_all_that_it_carries() -> None:
    """Its key, value and tags, each as long as it is."""
    copy = sent(followed(), kept(followed()))
    empty = replace(copy, key=b"", value=None, tags=())
    assert size_of(empty) == size_of(replace(empty, value=b"")) == OVERHEAD_BYTES
    more = [replace(empty, key=b"k" * 100), replace(empty, value=b"v" * 100), replace(empty, tags=TAGS)]
    assert [size_of(each) - OVERHEAD_BYTES for each in more] == [100, 100, 9 * len(TAGS)]


def test_who_has_followed_nothing_sends_nothing() -> None:
    """Of no incarnation, nothing could be told."""
    nothing = Timeline(Store(2**20), log_retention_s=60.0, log_max_changes=100)
    assert copy_of(kept(followed()), nothing, MEANING, 20.0) is None


def test_a_copy_is_true_at_the_newest_snapshot_that_its_sender_knows() -> None:
    """Not only at the one it was loaded at: so its receiver's log reaches back to it."""
    sender = followed(batch(150, 15.0, Change(120, 6)))
    copy = sent(sender, kept(sender))
    assert copy.snapshot == Snapshot(150, 150)
    receiver = followed(batch(140, 14.0), batch(160, 16.0))
    entry = entry_of(copy, USERS, receiver, 30.0)
    assert receiver.admit(entry, copy.incarnation) is Admission.OPEN


def test_a_change_that_its_sender_had_not_heard_of_ends_it() -> None:
    """However late it comes, and whoever sent it: it is judged by the receiver's log."""
    sender = followed()
    copy = sent(sender, kept(sender))
    receiver = followed(batch(150, 15.0, Change(120, 5)))
    assert receiver.admit(entry_of(copy, USERS, receiver, 30.0), copy.incarnation) is Admission.CLOSED
    forgotten = followed()
    forgotten.restart(7, Snapshot(150, 150), 15.0)
    assert forgotten.admit(entry_of(copy, USERS, forgotten, 30.0), copy.incarnation) is Admission.REFUSED
    assert receiver.admit(entry_of(copy, USERS, receiver, 30.0), 8) is Admission.REFUSED


def test_its_age_is_what_the_receivers_own_log_says() -> None:
    """A copy that was long on its way is no younger for it."""
    sender = followed(batch(150, 29.0))
    copy = sent(sender, kept(sender))
    receiver = followed(batch(120, 12.0), batch(160, 40.0))
    assert entry_of(copy, USERS, receiver, 41.0).loaded_s == 12.0


@pytest.mark.parametrize("until_s", [19.0, 20.0])
def test_what_has_ended_does_not_travel(until_s: float) -> None:
    """Neither by a change nor by its time."""
    timeline = followed()
    assert copy_of(kept(timeline, until_s=until_s), timeline, MEANING, 20.0) is None
    entry = kept(timeline)
    timeline.apply(batch(150, 15.0, Change(120, 5)))
    assert copy_of(entry, timeline, MEANING, 20.0) is None


def test_what_is_left_of_its_life_travels() -> None:
    """Counted from its arrival, by the receiver's clock."""
    timeline = followed()
    copy = sent(timeline, kept(timeline, until_s=25.0))
    assert copy.ttl_s == 5.0
    assert entry_of(copy, USERS, timeline, 1000.0).until_s == 1005.0
