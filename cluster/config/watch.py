"""Watching: how much is remembered for those who keep values, and how often they hear of it."""

from dataclasses import dataclass, field

from cluster.settings.units import GIB, KIB, MIB, MINUTE_S, Unit, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchConfig:
    """What is told about keys that leave memory."""

    log_keys: int = field(
        default=100_000,
        metadata=setting(
            Unit.COUNT,
            "most keys remembered for watchers that are slow or come back; one that missed more is told to let go "
            "of everything. Too small: bursts of changes empty clients; too big: long pauses to catch up",
            least=100,
            most=100_000_000,
        ),
    )
    log_size_bytes: int = field(
        default=16 * MIB,
        metadata=setting(
            Unit.BYTES,
            "the same in bytes. It is held beyond node.memory while anybody watches",
            least=64 * KIB,
            most=64 * GIB,
        ),
    )
    event_keys: int = field(
        default=1000,
        metadata=setting(
            Unit.COUNT,
            "most keys in one event. Too small: many events; too big: messages beyond what clients receive",
            least=1,
            most=3000,
        ),
    )
    gather_s: float = field(
        default=0.005,
        metadata=setting(
            Unit.DURATION,
            "how long keys are gathered for one event. Too small: an event for each key that is evicted; too big: "
            "clients hear of changes late",
            most=1.0,
        ),
    )
    heartbeat_s: float = field(
        default=0.25,
        metadata=setting(
            Unit.DURATION,
            "a watcher hears of the watermark at least this often. Too small: messages that say nothing; too big: "
            "what clients keep looks old, and a connection that is gone is noticed late",
            least=0.01,
            most=MINUTE_S,
        ),
    )
