"""The short way from a Get to its reply says what the long way says."""

from math import inf

from hypothesis import example, given
from hypothesis import strategies as st

from cluster.doors.grpc.hits import Hits, varint
from cluster.doors.grpc.messages import reply_of
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from cluster.doors.grpc.visitors import Anybody
from cluster.entries import Entry, Versioned
from cluster.requests import Reply, Source, State
from cluster.snapshots import Snapshot
from doors import CACHE, INCARNATION
from grpc_doors import Memory


@given(
    value=st.none() | st.binary(max_size=300),
    version=st.none() | st.integers(0, 2**53 - 1),
    age_s=st.floats(0, 1e6) | st.just(inf),
    at=st.integers(1, 2**62),
)
def test_the_short_way_writes_the_same_message(
    value: bytes | None, version: int | None, age_s: float, at: int
) -> None:
    """Whatever the value, version, age and snapshot."""
    node, as_of = Memory(), Snapshot(at, at)
    kind = Entry if version is None else Versioned
    entry = kind(key=b"users:1", cache=CACHE, value=value, snapshot=as_of, loaded_s=0.0, tags=())
    if isinstance(entry, Versioned):
        entry.version = version or 0
    node.store.index[entry.key] = entry
    node.timeline.as_of = lambda entry: (entry.snapshot, -age_s)
    reply = Reply(
        value=value, as_of=as_of, incarnation=INCARNATION, age_s=age_s, state=State.FRESH, source=Source.LOCAL,
        version=version,
    )  # fmt: skip
    found = Hits(node, node, Anybody(), lambda: 0.0).answer(v1.GetRequest(key="users:1").SerializeToString())
    assert found is not None
    assert v1.GetReply.FromString(found) == reply_of(reply, node.token(as_of, INCARNATION))


@given(
    st.builds(v1.GetRequest, key=st.text(min_size=1, max_size=200), track=st.just(True))
    | st.builds(v1.GetRequest, key=st.text(min_size=1), consistency=st.just(v1.Consistency()))
    | st.builds(v1.GetRequest, key=st.text(min_size=128, max_size=200))
    | st.just(v1.GetRequest())
)
def test_only_a_short_key_alone_goes_the_short_way(request: v1.GetRequest) -> None:
    """Everything else is read as a message."""
    node = Memory()
    node.hit = lambda key: 1 / 0  # type: ignore[assignment,method-assign,return-value]
    assert Hits(node, node, Anybody()).answer(request.SerializeToString()) is None


@given(
    data=st.binary(max_size=140)
    | st.binary(min_size=1, max_size=140).map(lambda key: b"\x0a" + varint(len(key)) + key)
)
@example(data=b"\x0a\x82" + b"x" * 130)  # a size of two bytes
def test_bytes_that_are_taken_for_a_key_are_one(data: bytes) -> None:
    """A request that is answered is the message that names that key, and nothing else."""
    node, keys = Memory(), []
    node.hit = keys.append  # type: ignore[assignment,method-assign]
    Hits(node, node, Anybody()).answer(data)
    for key in keys:
        assert data == b"\x0a" + varint(len(key)) + key


def test_a_new_watermark_is_told_at_once() -> None:
    """What is written once is written for one snapshot of one incarnation."""
    node = Memory()
    node.keep("users:1", b"1")
    hits, told = Hits(node, node, Anybody()), []
    five, six = Snapshot(5, 5), Snapshot(6, 6)
    for snapshot, incarnation in ((five, 1), (six, 1), (six, 2)):
        node.timeline.as_of = lambda _, snapshot=snapshot: (snapshot, 0.0)
        node.timeline.incarnation = incarnation
        told.append(v1.GetReply.FromString(hits.reply(b"users:1") or b"").as_of)
    assert told == [node.token(five, 1), node.token(six, 1), node.token(six, 2)]
