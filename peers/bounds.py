"""How much two nodes let each other wait, hold and send."""

from dataclasses import dataclass

from peers.failures import MAX_FAILURE_BYTES
from peers.wire import MAX_ROWS, ROW_OVERHEAD_BYTES

_HEAD_BYTES = 4096  # of a message: epoch, and what newer versions add; all of a hello


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The bounds of one connection, for both of its ends. Raises `ValueError`.

    All nodes of a cluster should have the same; where they differ, the smaller ``max_body_bytes`` refuses.
    """

    max_body_bytes: int = 8 * 2**20
    """Of one call or answer. Too small refuses large values; memory in use can be a few times this."""

    max_batch_calls: int = 128
    """In one message. Too small pays for a message too often, too large lets one end idle while the other works."""

    gather_s: float = 0.001
    """How long calls may wait for others to go with, while many are under way. Too small pays for more messages, too
    large delays calls behind slow ones."""

    max_batch_bytes: int = 256 * 1024
    """Of the bodies in one message, unless it has only one. Too large delays small answers behind it."""

    max_waiting: int = 10_000
    """Calls that wait to be sent."""

    max_under_way: int = 4096
    """Calls sent and not answered; the peer refuses more than this of one connection."""

    max_held_bytes: int = 64 * 2**20
    """Of bodies that wait to be sent, on either end."""

    max_connections: int = 1024
    """That one service has at a time. Each node of the cluster needs one."""

    handshake_s: float = 1.0
    """From the attempt to connect to the peer's hello."""

    pulse_s: float = 0.25
    """A peer that owes an answer and says nothing for this long is asked for a sign of life; after as long
    again it is unreachable. Less than a peer's longest stall cuts connections that are well."""

    reconnect_min_s: float = 0.05
    reconnect_max_s: float = 2.0
    """Between attempts: doubled each time, and each time a random part of it."""

    keepalive_s: float = 2.0
    """Between pings of a connection on which nothing is under way, and how long each may take; at least 1."""

    retry_after_s: float = 0.05
    """What a caller hears when there is no place for its call."""

    def __post_init__(self) -> None:
        if self.max_batch_calls > MAX_ROWS:
            raise ValueError(f"max_batch_calls is {self.max_batch_calls}, over {MAX_ROWS}")
        if self.max_held_bytes < self.max_body_bytes:
            raise ValueError("max_held_bytes is less than max_body_bytes: a large body could never wait")

    @property
    def max_message_bytes(self) -> int:
        """What a message within these bounds takes, at most."""
        bodies = max(self.max_body_bytes, self.max_batch_bytes)
        return _HEAD_BYTES + bodies + MAX_FAILURE_BYTES + MAX_ROWS * ROW_OVERHEAD_BYTES
