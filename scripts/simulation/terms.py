"""The model's terms in the node's: keys, tags, settings, polls, loads, what is asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, cast

import msgpack

from cluster import feed
from cluster.config import BreakerConfig, CacheConfig, FeedConfig, LoadConfig, NodeConfig, PostgresConfig
from cluster.entries import Batch, Change
from cluster.loader import Loaded
from cluster.requests import BOUNDED, STRONG, AtLeast, Consistency, Exactly
from cluster.tags import bulk_tag, table_tag
from cluster.tokens import Ticket
from scripts.simulation.messages import Answer, Call, Limits, Load
from scripts.simulation.model import ALL, KEYS, REL, TAGS, Token
from snapring.keys import Key

NODE_KEYS: Final = {
    key: Key(tenant="default", cache="all" if key == ALL else "row", args=() if key == ALL else (key,))
    for key in KEYS
}
CANONICAL: Final = {name: key.canonical for name, key in NODE_KEYS.items()}
NAMES: Final = {canonical: name for name, canonical in CANONICAL.items()}
_TAGS_OF: Final = {key: (table_tag(REL),) if key == ALL else (TAGS[key], bulk_tag(REL)) for key in KEYS}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Query:
    """What an answer needs of a plan."""

    cache: CacheConfig
    columns: tuple[str, ...] = ("value",)


def loaded(load: Load, caches: Mapping[str, CacheConfig]) -> Loaded:
    """``load`` as the loader delivers it."""
    query = _Query(cache=caches[NODE_KEYS[load.key].cache])
    return Loaded(
        plan=cast("Any", query),
        rows=[(load.value,)],
        tags=_TAGS_OF[load.key],
        snapshot=load.snapshot,
        incarnation=load.incarnation,
        sent_s=load.sent_s,
    )


def poll(answer: Answer, bound: int) -> feed.Poll:
    """``answer`` as the feed takes it, cut off above ``bound`` rows."""
    changes: dict[Change, None] = {}
    for row in answer.rows[: bound + 1]:
        changes.update(dict.fromkeys(feed._changes(*row)))  # noqa: SLF001 - the feed's own reading of a row
    return feed.Poll(
        batch=Batch(
            incarnation=answer.incarnation,
            snapshot=answer.snapshot,
            sent_s=answer.sent_s,
            changes=tuple(changes),
        ),
        trimmed=answer.trimmed,
        catalog_version=answer.catalog_version,
        overflow=len(answer.rows) > bound,
    )


def configuration(limits: Limits) -> NodeConfig:
    """A node's configuration under ``limits``."""
    caches = (
        CacheConfig(
            name=name, sql="SELECT", single=True, max_staleness_s=limits.max_staleness_s, stale_if_error_s=100
        )
        for name in ("row", "all")
    )
    return NodeConfig(
        name="simulated",
        secrets=(b"a secret of the simulation",),
        token_wait_s=limits.token_wait_s,
        postgres=PostgresConfig(url="postgresql://"),
        feed=FeedConfig(
            log_retention_s=limits.log_retention_s,
            log_max_changes=limits.log_max_changes,
            max_changes_per_poll=limits.max_changes_per_poll,
        ),
        load=LoadConfig(),
        breaker=BreakerConfig(failures=2, reset_s=2, window_s=20),
        caches={cache.name: cache for cache in caches},
    )


def exact(token: Token) -> Exactly:
    """The consistency that asks for exactly ``token``."""
    return Exactly(token.snapshot, token.incarnation)


def consistency(call: Call) -> Consistency:
    """What ``call`` asks for."""
    if call.token is None:
        return STRONG if call.how == "strong" else BOUNDED
    if call.how == "exactly":
        return exact(call.token)
    if call.how == "ticket":
        return AtLeast(Ticket(call.token.snapshot.xmax - 1), call.token.incarnation)
    return AtLeast(call.token.snapshot, call.token.incarnation)


@lru_cache(maxsize=4096)
def text(value: bytes | None) -> str:
    """The model's value in an encoded one."""
    assert value is not None, "every query of the model finds a row"
    return str(msgpack.unpackb(value)["value"])
