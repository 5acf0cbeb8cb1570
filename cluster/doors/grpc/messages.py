"""What the messages of the door mean to a node, and a node's answers as messages. Pure."""

from collections.abc import Sequence
from math import ceil, isfinite
from typing import Final

from google.protobuf.message import Message

from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from cluster.doors.grpc.visitors import Visitor
from cluster.doors.reads import Reads
from cluster.requests import BOUNDED, STRONG, Consistency, Reply, Source, State
from cluster.watching import Place
from cluster.writes import MAX_VERSION, Deed
from snapring.errors import CommandInvalid
from snapring.keys import Key

_STATES: Final = {State.FRESH: v1.STATE_FRESH, State.STALE: v1.STATE_STALE}
_SOURCES: Final = {
    Source.LOCAL: v1.SOURCE_LOCAL,
    Source.PEER: v1.SOURCE_PEER,
    Source.BACKUP: v1.SOURCE_BACKUP,
    Source.LOAD: v1.SOURCE_LOAD,
}


def keys_of(request: Message) -> Sequence[bytes]:
    """The texts of the keys that ``request`` names."""
    match request:
        case v1.GetRequest():
            texts = [request.key]
        case v1.GetManyRequest():
            texts = [*request.keys]
        case v1.WriteRequest():
            texts = [deed.key for deed in request.deeds]
        case _:
            texts = []
    return [text.encode() for text in texts]


def consistency_of(node: Reads, asked: v1.Consistency) -> Consistency:
    """What ``asked`` demands. Raises `TokenInvalid`, `TokenForeign`."""
    match asked.WhichOneof("asked"):
        case "at_least":
            return node.at_least(asked.at_least)
        case "exactly":
            return node.exactly(asked.exactly)
        case "strong" if asked.strong:
            return STRONG
    return BOUNDED


def read_of(
    node: Reads, visitor: Visitor, text: str, asked: Consistency, *, alone: bool = True
) -> tuple[Key, Consistency]:
    """The key that ``visitor`` means by ``text`` and what is asked of it: ``asked``, or what a token in the key says.

    Not both, if it is ``alone``.
    """
    key, token = visitor.key(text.encode())
    if token is None:
        return key, asked
    if alone and asked is not BOUNDED:
        raise CommandInvalid("a token in the key and a consistency exclude each other")
    return key, node.at_least(token)


def deed_of(visitor: Visitor, deed: v1.Deed) -> Deed:
    """What ``visitor`` wants done. Raises `KeyInvalid`, `PermissionDenied`, `CommandInvalid`."""
    key, token = visitor.key(deed.key.encode())
    what = deed.WhichOneof("what")
    if token is not None:
        raise CommandInvalid("a deed takes a key without a token: if_version demands what it follows")
    if what is None:
        raise CommandInvalid(f"a deed puts or deletes: set one of both for {key}")
    if deed.if_version > MAX_VERSION:
        raise CommandInvalid(f"if_version must be from 0 to {MAX_VERSION}")
    return Deed(
        key=key,
        value=deed.put if what == "put" else None,
        if_version=deed.if_version if deed.HasField("if_version") else None,
    )


def reply_of(reply: Reply, as_of: str, tracked: Place | None = None) -> v1.GetReply:
    """``reply`` as a message; ``as_of`` is its token."""
    return v1.GetReply(
        value=reply.value,
        as_of=as_of,
        age_ms=milliseconds(reply.age_s),
        state=_STATES[reply.state],
        source=_SOURCES[reply.source],
        version=reply.version,
        tracked=place_of(tracked) if tracked else None,
    )


def place_of(place: Place) -> v1.Place:
    """``place`` as a message."""
    return v1.Place(log=place.log, tick=place.tick)


def milliseconds(age_s: float) -> int:
    """An age in whole milliseconds, rounded up; -1 where it is not known (infinite)."""
    return max(0, ceil(age_s * 1000)) if isfinite(age_s) else -1
