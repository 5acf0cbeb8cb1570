"""How misses and writes become statements."""

from dataclasses import dataclass, field

from cluster.settings.units import HOUR_S, KIB, MIB, Unit, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadConfig:
    """How misses become queries."""

    queue: int = field(
        default=4096,
        metadata=setting(
            Unit.COUNT,
            "most loads waiting for a connection; beyond it, OVERLOADED with a retry hint. Too small: "
            "bursts are refused; too big: callers wait for answers they no longer want",
            least=1,
            most=1_000_000,
        ),
    )
    batch: int = field(
        default=64,
        metadata=setting(
            Unit.COUNT,
            "most loads sent in one round trip at one snapshot. Too small: more round trips; too big: the "
            "first of a batch waits for the last",
            least=1,
            most=10_000,
        ),
    )
    timeout_s: float = field(
        default=5.0,
        metadata=setting(
            Unit.DURATION,
            "a load, its time in the queue included, fails after this long. Too small: slow queries never "
            "load; too big: callers hang while the database does",
            least=0.01,
            most=HOUR_S,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteConfig:
    """How puts and deletes of ``store`` caches reach the database."""

    connections: int = field(
        default=2,
        metadata=setting(
            Unit.COUNT,
            "connections that write, besides those that load. Too small: writes wait for each other's "
            "commit; too big: nodes x limit exceeds the database's max_connections",
            least=1,
            most=1000,
        ),
    )
    queue: int = field(
        default=1024,
        metadata=setting(
            Unit.COUNT,
            "most writes waiting, half of them at most for one key; beyond it, OVERLOADED with a retry hint. "
            "Too small: bursts are refused; too big: callers wait for long",
            least=1,
            most=1_000_000,
        ),
    )
    timeout_s: float = field(
        default=5.0,
        metadata=setting(
            Unit.DURATION,
            "a write, its time in the queue included, fails after this long: with WRITE_UNCERTAIN if it was "
            "sent, and then it may still happen for this long. Too small: outcomes unknown under load; too big: "
            "callers hang while the database does",
            least=0.01,
            most=HOUR_S,
        ),
    )
    max_keys: int = field(
        default=128,
        metadata=setting(
            Unit.COUNT,
            "most keys in one atomic write. Too big: one transaction that holds many locks",
            least=1,
            most=1000,
        ),
    )
    max_value_bytes: int = field(
        default=512 * KIB,
        metadata=setting(
            Unit.BYTES,
            "a larger value is refused; resp.max_request must have room for it. Too big: one value can hold up "
            "the loop and the memory of readers",
            least=KIB,
            most=256 * MIB,
        ),
    )
