"""What a node says about itself: plain numbers by section, as INFO shows them. Reads only."""

from math import isfinite
from typing import TYPE_CHECKING

from cluster.analysis.statement import parameters

if TYPE_CHECKING:
    from cluster.node import Node

Section = dict[str, object]


def describe(node: "Node", now_s: float) -> dict[str, Section]:
    """The sections of ``node``'s status at monotonic ``now_s``. Durations are in seconds."""
    return {
        "node": _node(node, now_s),
        "reads": _reads(node),
        "memory": _memory(node),
        "feed": _feed(node, now_s),
        "loads": _loads(node),
        "writes": _writes(node),
        "retention": _retention(node),
        "breaker": {"breaker_state": node.breaker.state},
        "watching": node.watching.describe(),
        "caches": _caches(node),
        "tenants": _tenants(node),
    }


def _node(node: "Node", now_s: float) -> Section:
    return {"node_name": node.config.name, "uptime_s": round(now_s - node.started_s, 3)}


def _reads(node: "Node") -> Section:
    asked = node.hits + node.misses
    return {
        "hits": node.hits,
        "misses": node.misses,
        "hit_ratio": round(node.hits / asked, 6) if asked else 0.0,
        "stale_replies": node.stale,
        "errors": node.errors,
        "flights_joined": node.flights.joined,
    }


def _memory(node: "Node") -> Section:
    return {
        "memory_budget_bytes": node.config.memory_bytes,
        "memory_used_bytes": node.store.bytes,
        "entries": len(node.store),
        **{f"removed_{reason}": count for reason, count in node.store.removed.items()},
        **{f"admission_{admission.value}": count for admission, count in node.admissions.items()},
    }


def _feed(node: "Node", now_s: float) -> Section:
    timeline, feed = node.timeline, node.feed
    age_s = now_s - timeline.watermark_s
    return {
        "incarnation": f"{timeline.incarnation:016x}" if timeline.incarnation is not None else "",
        "watermark": str(timeline.watermark or ""),
        "watermark_age_s": round(age_s, 6) if isfinite(age_s) else -1,
        "polls": feed.polls,
        "poll_failures": feed.failures,
        "changes_applied": feed.changes,
        "entries_ended": feed.ended,
        "voided": feed.voided,
        "last_error": feed.last_error,
    }


def _loads(node: "Node") -> Section:
    loader = node.loader
    return {
        "loads": loader.loads,
        "load_batches": loader.batches,
        "load_failures": loader.failures,
        "loads_refused": loader.refused,
        "loads_queued": loader.queued,
    }


def _writes(node: "Node") -> Section:
    writer = node.writer
    return {
        "writes": writer.written,
        "writes_mismatched": writer.mismatched,
        "write_batches": writer.batches,
        "write_failures": writer.failures,
        "writes_uncertain": writer.uncertain,
        "writes_refused": writer.refused,
        "writes_queued": writer.queued,
        "writes_blocked": writer.blocked,
    }


def _retention(node: "Node") -> Section:
    retention = node.retention
    return {
        "sweeping": int(retention.holder),
        "sweep_rounds": retention.rounds,
        "changes_deleted": retention.changes,
        "versions_deleted": retention.history,
        "sweep_failures": retention.failures,
        "last_sweep_error": retention.last_error,
    }


def _caches(node: "Node") -> Section:
    refused = node.plans.refusals()
    return {
        name: (f"refused={refused[name]}" if name in refused else "") or _cache(node, name)
        for name in sorted(node.config.caches)
    }


def _tenants(node: "Node") -> Section:
    """What each has in memory, where they are told apart."""
    return {
        tenant: f"entries={count},bytes={size}" for tenant, (count, size) in node.store.tenant_usage().items()
    }


def _cache(node: "Node", name: str) -> str:
    cache = node.config.caches[name]
    count, size = node.store.cache_usage(name)
    taken = parameters(cache.sql) - cache.tenant_argument if cache.kind == "query" else ""
    tally = node.store.tallies[name]
    said = {
        "entries": count,
        "bytes": size,
        "lookups": tally.lookups,
        "hits": tally.hits,
        "misses": tally.misses,
        "kind": cache.kind,
        "arguments": taken,
        "max_staleness_s": f"{cache.max_staleness_s:g}",
    }
    return ",".join(f"{field}={value}" for field, value in said.items())
