"""What SNAP.GET says of open entries: the same bytes as of the replies that a read would make of them."""

import pytest

from cluster.doors.resp.frames import NULLS, RESP2, RESP3
from cluster.doors.resp.reads import ReadCommands
from cluster.doors.resp.telling import Telling
from cluster.entries import Entry, Versioned
from cluster.requests import Reply, Source, State
from cluster.snapshots import Snapshot
from doors import CACHE, INCARNATION, SNAPSHOT, MemoryNode, resp_config

LOADED_S, NOW_S = 100.0, 100.0121
LATER = Snapshot(200, 210, (205,))


def entry(value: bytes | None, version: int | None, snapshot: Snapshot = SNAPSHOT) -> Entry:
    """One that is open."""
    kind = Entry if version is None else Versioned
    made = kind(key=b"users:1", cache=CACHE, value=value, snapshot=snapshot, loaded_s=LOADED_S, tags=())
    if isinstance(made, Versioned) and version is not None:
        made.version = version
    return made


def read(node: MemoryNode, of: Entry, protocol: int, age_s: float) -> bytes:
    """The frame by way of a reply."""
    reply = Reply(
        value=of.value,
        as_of=of.snapshot,
        incarnation=node.timeline.incarnation,
        age_s=age_s,
        state=State.FRESH,
        source=Source.LOCAL,
        version=of.version,
    )
    return ReadCommands(node, resp_config())._full(reply, protocol, NULLS[protocol])


@pytest.fixture
def node() -> MemoryNode:
    """A node whose entries are true as of their own snapshots."""
    made = MemoryNode()
    made.timeline.as_of = lambda of: (of.snapshot, of.loaded_s)
    return made


@pytest.mark.parametrize("protocol", [RESP2, RESP3])
@pytest.mark.parametrize("version", [None, 7])
@pytest.mark.parametrize("value", [b"value", b"", None])
def test_it_is_the_frame_of_the_reply(
    node: MemoryNode, value: bytes | None, version: int | None, protocol: int
) -> None:
    """With the age of the moment."""
    of = entry(value, version)
    told = Telling(node).frame(of, NOW_S, protocol, NULLS[protocol])
    assert told == read(node, of, protocol, NOW_S - LOADED_S)


def test_the_token_is_that_of_the_entry_told(node: MemoryNode) -> None:
    """Whatever was told before it: of another snapshot, or in another incarnation."""
    telling = Telling(node)
    for snapshot, incarnation in ((SNAPSHOT, INCARNATION), (LATER, INCARNATION), (LATER, 8), (SNAPSHOT, 8)):
        node.timeline.incarnation = incarnation
        of = entry(b"value", None, snapshot)
        told = telling.frame(of, NOW_S, RESP3, NULLS[RESP3])
        assert told == read(node, of, RESP3, NOW_S - LOADED_S)


def test_nothing_is_told_where_the_incarnation_is_not_known(node: MemoryNode) -> None:
    """There is no token to give."""
    node.timeline.incarnation = None
    assert Telling(node).frame(entry(b"value", None), NOW_S, RESP3, NULLS[RESP3]) is None
