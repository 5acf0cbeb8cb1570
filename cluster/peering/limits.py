"""How much this node and its peers let each other wait, hold and send, out of what the operator named. Pure.

What is not a setting of its own follows from one, or is a constant of `peers.bounds.Bounds`, which says why.
"""

from typing import Final

from cluster.config import PeersConfig
from peers.bounds import Bounds

PULSES_PER_HOP: Final = 4
"""A call may begin just after a look at its connection, the next look asks, the one after that gives up: three
pulses, and one to spare."""

_RECONNECT_STEPS: Final = 40
_KEEPALIVES_PER_PULSE: Final = 8


def bounds_of(config: PeersConfig) -> Bounds:
    """The bounds of every connection to and from a node of ``config``."""
    pulse_s = config.hop_timeout_s / PULSES_PER_HOP
    return Bounds(
        max_body_bytes=config.max_message_bytes,
        max_waiting=config.queue,
        max_under_way=config.max_under_way,
        max_held_bytes=config.buffer_bytes,
        max_connections=config.max_connections,
        handshake_s=config.hop_timeout_s,
        pulse_s=pulse_s,
        keepalive_s=_KEEPALIVES_PER_PULSE * pulse_s,
        reconnect_min_s=config.reconnect_s / _RECONNECT_STEPS,
        reconnect_max_s=config.reconnect_s,
    )
