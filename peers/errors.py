"""What goes wrong between two nodes, as against what a node answers.

A `PeerError` says nothing about the request, nor about Postgres: ask the backup, or load here. It is
raised where the fault is seen and does not travel: no answer of a peer can look like one, but for
`MessageTooLarge`, which a peer answers where only it can know.
"""

from snapring.errors import DeadlineExceeded, SnapringError


class PeerError(SnapringError):
    """The hop failed, not the request."""

    code = "PEER_ERROR"
    retryable = True


class PeerUnreachable(PeerError):
    """There is no connection to the peer, or it broke before the answer came: the call may have been done."""

    code = "PEER_UNREACHABLE"


class PeerSilent(PeerError, DeadlineExceeded):
    """The peer did not answer within the call's deadline."""

    code = "DEADLINE_EXCEEDED"


class PeerForeign(PeerError):
    """The peer has none of this node's secrets: it is of another cluster, or configured wrongly."""

    code = "PEER_FOREIGN"
    retryable = False


class PeerIncompatible(PeerError):
    """The two nodes have no version of the protocol in common: upgrade the older one."""

    code = "PEER_INCOMPATIBLE"
    retryable = False


class PeerUntrusted(PeerError):
    """Who asks is not the node that it says to be, or not one that is let in."""

    code = "PEER_UNTRUSTED"
    retryable = False


class MessageInvalid(PeerError):
    """Bytes that are no message of this protocol."""

    code = "PEER_MESSAGE_INVALID"
    retryable = False


class MessageTooLarge(PeerError):
    """A call or an answer beyond what peers exchange: it will not get smaller by trying again."""

    code = "PEER_MESSAGE_TOO_LARGE"
    retryable = False
