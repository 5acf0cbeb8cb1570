"""What an error that came instead of a peer's answer means for the request. Pure.

One table, a row for each error there is. A peer's failure is never an answer, nor is the trouble that a peer
alone has with Postgres; what Postgres or the request itself is to blame for is the same whoever is asked.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from peers.errors import (
    MessageInvalid,
    MessageTooLarge,
    PeerError,
    PeerForeign,
    PeerIncompatible,
    PeerSilent,
    PeerUnreachable,
    PeerUntrusted,
)
from snapring.errors import (
    ArgumentInvalid,
    CacheRefused,
    CacheUnknown,
    CallInvalid,
    CatalogChanging,
    CommandInvalid,
    ConfigInvalid,
    ConnectionFailed,
    DeadlineExceeded,
    KeyInvalid,
    MemoUnsettled,
    NodeStopping,
    Overloaded,
    PermissionDenied,
    QueryFailed,
    QueryTimeout,
    ReadOnly,
    SnapringError,
    SnapshotExpired,
    SnapshotUnavailable,
    TokenAhead,
    TokenForeign,
    TokenInvalid,
    TooManyRows,
    Unauthenticated,
    Unavailable,
    ValueInvalid,
    VersionMismatch,
    WriteUncertain,
)


class Verdict(Enum):
    """What to do."""

    ANSWER = auto()
    """Raise it: it is about the request, and another node could say nothing else."""
    NEXT = auto()
    """Ask the next node, in the end this one: it is about the hop, or about the peer."""
    HERE = auto()
    """This node must find the answer: the next peer is no better."""
    ITS_DATABASE = auto()
    """`NEXT` where Postgres can be reached from here, else `HERE`, where that is known at once."""


VERDICTS: Final[Mapping[type[SnapringError], Verdict]] = {
    # About the request, or about Postgres, which is one for all.
    ArgumentInvalid: Verdict.ANSWER,
    CacheRefused: Verdict.ANSWER,
    CatalogChanging: Verdict.ANSWER,
    KeyInvalid: Verdict.ANSWER,
    QueryFailed: Verdict.ANSWER,
    QueryTimeout: Verdict.ANSWER,  # elsewhere it would run as long again
    SnapshotExpired: Verdict.ANSWER,
    SnapshotUnavailable: Verdict.ANSWER,
    TokenAhead: Verdict.ANSWER,
    TooManyRows: Verdict.ANSWER,
    # The owner cannot reach Postgres; others may.
    Unavailable: Verdict.ITS_DATABASE,
    # Two nodes differ: in configuration, in what they follow, in what may travel.
    CacheUnknown: Verdict.HERE,
    MessageTooLarge: Verdict.HERE,
    TokenForeign: Verdict.HERE,
    TokenInvalid: Verdict.HERE,
    # The peer has too much to do, leaves, or took too long for what time there was.
    DeadlineExceeded: Verdict.NEXT,
    NodeStopping: Verdict.NEXT,
    Overloaded: Verdict.NEXT,
    # The hop failed.
    MessageInvalid: Verdict.NEXT,
    PeerError: Verdict.NEXT,
    PeerForeign: Verdict.NEXT,
    PeerIncompatible: Verdict.NEXT,
    PeerSilent: Verdict.NEXT,
    PeerUnreachable: Verdict.NEXT,
    PeerUntrusted: Verdict.NEXT,
    # A defect of the peer's: no read ends so, or it is an error that this version does not know.
    CallInvalid: Verdict.NEXT,
    CommandInvalid: Verdict.NEXT,
    ConfigInvalid: Verdict.NEXT,
    ConnectionFailed: Verdict.NEXT,
    MemoUnsettled: Verdict.NEXT,
    PermissionDenied: Verdict.NEXT,
    ReadOnly: Verdict.NEXT,
    SnapringError: Verdict.NEXT,
    Unauthenticated: Verdict.NEXT,
    ValueInvalid: Verdict.NEXT,
    VersionMismatch: Verdict.NEXT,
    WriteUncertain: Verdict.NEXT,
}

BLAMELESS: Final = (DeadlineExceeded, NodeStopping, Overloaded)
"""Of what is `Verdict.NEXT`, that which says of itself that the peer is alive and knows what it does."""


def verdict(error: SnapringError, *, reachable: bool) -> Verdict:
    """What to do about ``error``; ``reachable`` says whether Postgres is, from here. Never `ITS_DATABASE`."""
    found = _row(error)
    if found is not Verdict.ITS_DATABASE:
        return found
    return Verdict.NEXT if reachable else Verdict.HERE


def blames_peer(error: SnapringError) -> bool:
    """Whether ``error`` counts against the peer, see `cluster.peering.breakers`.

    A call that ran out of its caller's time does not: a peer that is silent loses its connection long before, so this
    one is at work, and may be for as long on any other node.
    """
    return _row(error) is Verdict.NEXT and not isinstance(error, BLAMELESS)


def clears_peer(error: SnapringError) -> bool:
    """Whether ``error`` shows that the peer answers, as a value would: it is about the request, or about Postgres."""
    return _row(error) in (Verdict.ANSWER, Verdict.ITS_DATABASE)


def _row(error: SnapringError) -> Verdict:
    return VERDICTS.get(type(error), Verdict.NEXT)
