"""A cache: one named family of entries, its bounds and its promises."""

from dataclasses import dataclass, field
from typing import Final, Literal

from cluster.settings.units import DAY_S, GIB, KIB, Unit, setting

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

    tenants: tuple[str, ...] | None = field(
        default=None,
        metadata=setting(
            Unit.TEXTS,
            "the tenants that may use the cache; needs access.keys_file",
            least=1,
            absent="all",
        ),
    )
    tenant_argument: bool = field(
        default=False,
        metadata=setting(
            Unit.FLAG,
            "`$1` is the tenant of the key, which with access.keys_file is that of the credential, and the arguments "
            "in the key begin with `$2`: so a filter on a tenant's rows cannot be forged",
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
