"""Whether two nodes share a secret, found out without either telling it. Pure.

A node says a fingerprint of each of its secrets in its hello: an HMAC under the secret, of a label that nothing else
uses. It gives away no more than every token does. What an older node does not say is unknown.

The secrets sign what clients hold (tokens); no message between nodes has one. But they are what all nodes of a cluster
have in common by configuration: a node that has none of ours is configured wrongly, or of another cluster, on
another database, whose plain answers nothing would tell from right ones. It is neither asked nor believed.
"""

import hmac
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from peers.errors import PeerForeign
from peers.wire import Hello

MAX_SECRETS: Final = 16
"""Of one node, that are told; the first ones."""

_BYTES: Final = 8
_LABEL: Final = b"snapring peers: a secret that nodes share, version 1"


class Kinship(StrEnum):
    """How the secrets of two nodes stand to each other."""

    SAME = "same"
    """Each takes the other's tokens."""
    PARTIAL = "partial"
    """They have one in common, but one of them signs with a secret that the other has not."""
    OTHER = "other"
    UNKNOWN = "unknown"


def fingerprints(secrets: Sequence[bytes]) -> bytes:
    """What a node says of its ``secrets``, of which the first signs."""
    return b"".join(hmac.digest(secret, _LABEL, "sha256")[:_BYTES] for secret in secrets[:MAX_SECRETS])


def kinship(mine: bytes, theirs: bytes) -> Kinship:
    """What follows from the fingerprints of two nodes."""
    own, other = _split(mine), _split(theirs)
    if not own or not other:
        return Kinship.UNKNOWN
    if set(own).isdisjoint(other):
        return Kinship.OTHER
    return Kinship.SAME if own[0] in other and other[0] in own else Kinship.PARTIAL


def befriend(own: Hello, peer: Hello) -> None:
    """Raise `PeerForeign` unless the two may be of one cluster."""
    if kinship(own.secrets, peer.secrets) is Kinship.OTHER:
        raise PeerForeign(
            f"{peer.node} has none of this node's secrets: make node.secrets the same on every node of a cluster"
        )


def _split(told: bytes) -> Sequence[bytes]:
    return [told[at : at + _BYTES] for at in range(0, len(told), _BYTES)]
