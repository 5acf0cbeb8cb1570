"""How a node reaches its database, follows the commits, and leaves it alone when it is ill."""

from dataclasses import dataclass, field

from cluster.settings.units import DAY_S, HOUR_S, MINUTE_S, Unit, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresConfig:
    """How this node reaches the database."""

    url: str = field(
        repr=False,
        metadata=setting(
            Unit.URL,
            "the primary, never a standby; the node needs a role that may read the cached tables, and what "
            "`snapring init --role` grants it; `init`, `track`, `untrack` and `check` need the tables' owner",
            absent="required",
        ),
    )
    connections: int = field(
        default=4,
        metadata=setting(
            Unit.COUNT,
            "connections that load, besides one for the feed; the last free one is kept for a cache that has "
            "none, so 2 load one cache through one. Too small: misses wait in the queue; too big: nodes x "
            "limit exceeds the database's max_connections, and a cold start is a herd",
            least=1,
            most=1000,
            key="node.concurrency_limit",
        ),
    )
    connect_timeout_s: float = field(
        default=3.0,
        metadata=setting(
            Unit.DURATION,
            "a connection attempt that takes longer has failed. Too small: a busy server looks dead; too "
            "big: a dead one is noticed late",
            least=0.1,
            most=5 * MINUTE_S,
        ),
    )
    statement_timeout_s: float = field(
        default=4.0,
        metadata=setting(
            Unit.DURATION,
            "Postgres cancels a load's query, or a write, after this long. Too small: slow queries never load; "
            "too big: queries that nobody waits for hold connections",
            least=0.01,
            most=HOUR_S,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedConfig:
    """How this node follows the database's commits."""

    poll_period_s: float = field(
        default=0.025,
        metadata=setting(
            Unit.DURATION,
            "time between polls: how long a commit stays unseen. Too small: more statements per second "
            "and node on the database (a poll costs about 0.3 ms, with event triggers); too big: older replies",
            least=0.001,
            most=MINUTE_S,
        ),
    )
    poll_timeout_s: float = field(
        default=2.0,
        metadata=setting(
            Unit.DURATION,
            "a poll that takes longer has failed, and its connection is replaced. Too small: a busy "
            "database is taken for a dead one; too big: a dead connection is noticed late",
            least=0.01,
            most=5 * MINUTE_S,
        ),
    )
    max_changes_per_poll: int = field(
        default=100_000,
        metadata=setting(
            Unit.COUNT,
            "a poll that finds more changes empties the cache instead of applying them. Too small: "
            "write bursts empty the cache; too big: applying one batch blocks the loop",
            least=100,
            most=10_000_000,
        ),
    )
    log_retention_s: float = field(
        default=30.0,
        metadata=setting(
            Unit.DURATION,
            "how long applied changes are remembered, to judge loads that began before them; at least "
            "load.timeout. Too small: slow loads answer but are not kept; too big: memory",
            least=0.1,
            most=HOUR_S,
        ),
    )
    log_max_changes: int = field(
        default=1_000_000,
        metadata=setting(
            Unit.COUNT,
            "most changes remembered at once (about 100 bytes each), whatever their age. Too small: under "
            "heavy writes, slow loads are not kept; too big: memory beyond node.memory",
            least=1000,
            most=100_000_000,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerConfig:
    """When this node stops asking a database that does not answer."""

    failures: int = field(
        default=5,
        metadata=setting(
            Unit.COUNT,
            "failures within the window that open the breaker. Too small: one hiccup stops all loads for "
            "a moment; too big: callers wait on a dead database",
            least=1,
            most=1_000_000,
        ),
    )
    window_s: float = field(
        default=10.0,
        metadata=setting(
            Unit.DURATION,
            "the window in which failures are counted. Too small: never enough of them; too big: failures "
            "of different causes add up",
            least=0.1,
            most=HOUR_S,
        ),
    )
    reset_s: float = field(
        default=0.5,
        metadata=setting(
            Unit.DURATION,
            "time between probes while the breaker is open, jittered. Too small: a starting database is "
            "pestered; too big: recovery is noticed late",
            least=0.01,
            most=10 * MINUTE_S,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionConfig:
    """How long the database keeps what is past. One node at a time deletes what is older."""

    changes_s: float = field(
        default=600.0,
        metadata=setting(
            Unit.DURATION,
            "how long change rows stay in the database. Too small: a node that was paused or cut off for "
            "longer empties its cache; too big: snapring.changes grows with the write rate",
            least=1.0,
            most=7 * DAY_S,
        ),
    )
    history_s: float = field(
        default=3600.0,
        metadata=setting(
            Unit.DURATION,
            "how long old versions of `store` caches can be read at an exact token; older ones answer "
            "SNAPSHOT_EXPIRED. Too big: snapring.history grows with the write rate",
            least=1.0,
            most=365 * DAY_S,
        ),
    )
    period_s: float = field(
        default=10.0,
        metadata=setting(
            Unit.DURATION,
            "time between rounds of deleting. Too small: needless statements; too big: larger deletes at "
            "once, and everything stays for up to this much longer",
            least=0.1,
            most=HOUR_S,
        ),
    )
    batch: int = field(
        default=5_000,
        metadata=setting(
            Unit.COUNT,
            "most rows of each kind deleted by one statement. Too small: deleting falls behind the writers; too "
            "big: locks and transactions that last",
            least=1,
            most=1_000_000,
        ),
    )
