"""The one configuration of a node: frozen values, their defaults, bounds and meaning. Pure.

Each field's metadata holds a `Setting`: what it means, its unit, and what happens when it is too big or
too small. Reading, validation, ``snapring config`` and the README's table all come from there. The name
a user writes is the field's name without the unit suffix ``_s`` or ``_bytes``, because the user writes
the unit in the value (``ttl = "5m"``); where that leaves no name, `Setting.key` gives one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from cluster.settings.units import DAY_S, GIB, HOUR_S, KIB, MIB, MINUTE_S, Unit, setting

CURRENT_VERSION: Final = "SELECT value, version FROM snapring.heads WHERE key = $1"
"""What loads an entry of a ``store`` cache: the version of a key that no other has followed yet."""

Kind = Literal["query", "store"]
Encoding = Literal["msgpack", "json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """One cache: a named family of entries."""

    name: str
    kind: Kind = field(
        default="query",
        metadata=setting(
            Unit.CHOICE,
            "`query` caches a SELECT over your own tables; `store` keeps versioned values that clients put, "
            "in a table that Snapring owns: of the settings below it takes max_bytes, ttl, max_staleness and "
            "stale_if_error",
            choices=("query", "store"),
        ),
    )
    sql: str = field(
        default="",
        metadata=setting(
            Unit.TEXT,
            "the SELECT of a `query` cache, its parameters written `$1`, `$2`, …",
            absent="required",
        ),
    )
    single: bool = field(
        default=False,
        metadata=setting(Unit.FLAG, "the value is one row or null instead of a list of rows"),
    )
    depends: tuple[str, ...] | None = field(
        default=None,
        metadata=setting(
            Unit.TEXTS,
            "what the entries depend on, in place of what is found in the SQL; naming too little serves "
            "wrong answers, too much only invalidates more often",
            least=1,
            absent="found in the SQL",
        ),
    )
    max_bytes: int | None = field(
        default=None,
        metadata=setting(
            Unit.BYTES,
            "this cache's share of the node's memory. Too small: its entries evict one another; too big: "
            "other caches get the rest. `none`: no share of its own, it competes for the whole",
            least=64 * KIB,
            most=1024 * GIB,
            key="max_bytes",
        ),
    )
    ttl_s: float | None = field(
        default=None,
        metadata=setting(
            Unit.DURATION,
            "an entry is loaded again after this long, although nothing changed. Exactness does not need "
            "it; too small: needless database reads. `none`: never",
            least=0.001,
            most=365 * DAY_S,
        ),
    )
    ttl_jitter: float = field(
        default=0.1,
        metadata=setting(
            Unit.FRACTION,
            "each entry's ttl is shortened by a random part up to this fraction. Too small: entries "
            "loaded together expire together; too big: a ttl that means little",
            below=1,
        ),
    )
    max_staleness_s: float = field(
        default=1.0,
        metadata=setting(
            Unit.DURATION,
            "how old the snapshot of a reply may be when the client asks for nothing stricter; at least "
            "two poll periods. Too small: one slow poll turns hits into loads; too big: when the feed "
            "stalls, old answers pass as FRESH for this long",
            least=0.002,
            most=DAY_S,
        ),
    )
    stale_if_error_s: float | None = field(
        default=None,
        metadata=setting(
            Unit.DURATION,
            "while Postgres is out of reach, entries up to this age are served, marked STALE with their "
            "true snapshot. Too big: very old answers; too small: UNAVAILABLE sooner. `none`: never",
            least=0.001,
            most=365 * DAY_S,
        ),
    )
    max_rows: int = field(
        default=10_000,
        metadata=setting(
            Unit.COUNT,
            "a query that returns more rows is refused with TOO_MANY_ROWS. Too big: one answer can fill "
            "the memory and block the loop while it is encoded",
            least=1,
            most=10_000_000,
        ),
    )
    encoding: Encoding = field(
        default="msgpack",
        metadata=setting(Unit.CHOICE, "how values are encoded, once, at load", choices=("msgpack", "json")),
    )
    bulk_limit: int = field(
        default=1000,
        metadata=setting(
            Unit.COUNT,
            "a statement that touches more distinct keys of a table than this ends every entry on that "
            "table; `snapring track` installs the smallest limit among the caches that read the table. "
            "Too small: medium writes empty the cache; too big: large writes write as many change rows",
            least=1,
            most=1_000_000,
        ),
    )

    @property
    def select(self) -> str:
        """What a load runs: the SQL of a ``query`` cache, or what reads a key of a ``store`` cache."""
        return self.sql if self.kind == "query" else CURRENT_VERSION

    @property
    def one_row(self) -> bool:
        """Whether a value is one row or nothing."""
        return self.single or self.kind == "store"


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
class RespConfig:
    """The RESP door."""

    host: str = field(
        default="127.0.0.1",
        metadata=setting(
            Unit.TEXT,
            "address to listen on. The door neither encrypts nor authenticates in this version: any other "
            "address than a loopback one needs resp.insecure",
        ),
    )
    port: int = field(default=7379, metadata=setting(Unit.COUNT, "TCP port; 0 takes a free one", most=65_535))
    insecure: bool = field(
        default=False,
        metadata=setting(Unit.FLAG, "allow a resp.host that others can reach, without authentication"),
    )
    max_request_bytes: int = field(
        default=MIB,
        metadata=setting(
            Unit.BYTES,
            "a larger request closes its connection with an error. Too small: long MGETs fail; too big: "
            "memory that one client can claim",
            least=4 * KIB,
            most=512 * MIB,
        ),
    )
    max_args: int = field(
        default=1024,
        metadata=setting(
            Unit.COUNT,
            "most words in one command; more close the connection. Too small: long MGETs fail; too big: "
            "one command holds the loop",
            least=8,
            most=1_000_000,
        ),
    )
    max_pipeline: int = field(
        default=1024,
        metadata=setting(
            Unit.COUNT,
            "most commands of one connection in work at once; the rest waits unread. Too small: pipelines "
            "stall; too big: one client fills the load queue",
            least=1,
            most=1_000_000,
        ),
    )
    max_connections: int = field(
        default=10_000,
        metadata=setting(
            Unit.COUNT,
            "most client connections; further ones are closed with an error. Too big: more than the "
            "process may open files",
            least=1,
            most=1_000_000,
        ),
    )
    write_buffer_bytes: int = field(
        default=8 * MIB,
        metadata=setting(
            Unit.BYTES,
            "replies that a client has not read yet; above it, its commands are not read either. Too "
            "small: large values stall; too big: slow readers hold memory beyond node.memory",
            least=16 * KIB,
            most=GIB,
        ),
    )
    idle_timeout_s: float | None = field(
        default=300.0,
        metadata=setting(
            Unit.DURATION,
            "a connection that sends nothing for this long is closed. Too small: pools reconnect all the "
            "time; `none`: dead clients keep their place",
            least=1.0,
            most=7 * DAY_S,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """Everything one node needs to know."""

    name: str = field(
        metadata=setting(Unit.TEXT, "this node's name, unique in the cluster", absent="the host's name")
    )
    memory_bytes: int = field(
        default=256 * MIB,
        metadata=setting(
            Unit.BYTES,
            "budget for entries, overhead included; the process needs about 100 MiB more. Too small: "
            "evictions, so more database reads; too big: the system kills the process",
            least=MIB,
            most=1024 * GIB,
        ),
    )
    secrets: tuple[bytes, ...] = field(
        repr=False,
        metadata=setting(
            Unit.SECRETS,
            "secrets that sign tokens, each at least 16 bytes: the first signs, all verify, so put a new "
            "one first to rotate. The same on every node. Random ones mean that tokens do not survive a "
            "restart",
            absent="random at start",
        ),
    )
    secret_files: tuple[str, ...] = field(
        default=(),
        metadata=setting(Unit.TEXTS, "files that hold one secret each, read at start, after node.secrets"),
    )
    request_timeout_s: float = field(
        default=5.0,
        metadata=setting(
            Unit.DURATION,
            "a request that has not been answered by then gets DEADLINE_EXCEEDED. Too small: slow loads "
            "are never seen; too big: clients hang",
            least=0.001,
            most=HOUR_S,
        ),
    )
    token_wait_s: float = field(
        default=0.5,
        metadata=setting(
            Unit.DURATION,
            "how long a request waits for the feed to reach its token before it loads or fails with "
            "TOKEN_AHEAD. Too small: needless loads; too big: tokens from the future hold requests",
            most=MINUTE_S,
        ),
    )
    drain_timeout_s: float = field(
        default=5.0,
        metadata=setting(
            Unit.DURATION,
            "how long a node that is told to stop waits for requests under way before it answers them with "
            "NODE_STOPPING. Too small: answers that were nearly there are lost; too big: restarts take long",
            most=5 * MINUTE_S,
        ),
    )
    postgres: PostgresConfig
    feed: FeedConfig = field(default_factory=FeedConfig)
    load: LoadConfig = field(default_factory=LoadConfig)
    write: WriteConfig = field(default_factory=WriteConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    resp: RespConfig = field(default_factory=RespConfig)
    caches: Mapping[str, CacheConfig] = field(default_factory=dict)
