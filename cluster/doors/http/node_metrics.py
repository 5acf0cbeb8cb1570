"""What is counted of a node by itself: memory, feed, loads, writes, and its way to Postgres."""

from math import inf

from cluster.breaker import STATES
from cluster.doors.http.families import (
    Families,
    counter,
    counters,
    gauge,
    gauges,
    histogram,
    histograms,
    one_of,
)
from cluster.node import Node


def node_metrics(node: Node, now_s: float) -> Families:
    """Of ``node`` at monotonic ``now_s``."""
    yield from _memory(node)
    yield from _loads(node)
    yield from _feed(node, now_s)
    yield from _writes(node)
    yield from _breaker(node)


def _memory(node: Node) -> Families:
    store = node.store
    usage = {name: store.cache_usage(name) for name in sorted(node.config.caches)}
    yield gauges(
        "cache_entries",
        "Entries in memory.",
        "cache",
        {name: entries for name, (entries, _) in usage.items()},
    )
    yield gauges(
        "cache_bytes",
        "Memory that the entries take, overhead included.",
        "cache",
        {name: size for name, (_, size) in usage.items()},
    )
    yield gauge("memory_used_bytes", "Memory that all entries take, overhead included.", store.bytes)
    yield gauge("memory_budget_bytes", "node.memory.", node.config.memory_bytes)
    yield counters(
        "removals",
        "Entries evicted and removed, ended by a change, or never kept, by reason.",
        "reason",
        {str(reason): count for reason, count in store.removed.items()},
    )
    yield gauge("watch_log_bytes", "What has left and is remembered for watchers.", node.watching.log_bytes)
    yield gauge(
        "watch_subscriptions", "Watches and tracking doors that read it.", node.watching.subscriptions
    )
    yield counters(
        "admissions",
        "What became of loaded entries.",
        "outcome",
        {admission.value: count for admission, count in node.admissions.items()},
    )


def _loads(node: Node) -> Families:
    loader = node.loader
    yield histograms("load_seconds", "From a miss to its rows, queueing included.", "cache", loader.took)
    yield histogram("load_batch_size", "Loads in one round trip.", loader.batch_sizes)
    yield counter("load_failures", "Loads that brought no rows.", loader.failures)
    yield counter("loads_refused", "Loads for which the queue had no room.", loader.refused)
    yield gauge("loads_waiting", "Loads that wait for a connection.", loader.queued)


def _feed(node: Node, now_s: float) -> Families:
    feed, timeline = node.feed, node.timeline
    lag_s = now_s - timeline.watermark_s if timeline.watermark is not None else inf
    yield gauge("feed_lag_seconds", "Age of the watermark; infinite while there is none.", lag_s)
    yield gauge(
        "feed_lag_snapshots",
        "By how many snapshots (transaction ids) the watermark was behind the last poll that got through.",
        feed.behind,
    )
    yield counter("feed_polls", "Polls that got through.", feed.polls)
    yield counter("feed_poll_failures", "Polls that failed.", feed.failures)
    yield counter("changes_applied", "Changes that polls brought and the node applied.", feed.changes)
    yield counter("invalidations", "Entries that a change ended.", feed.ended)
    yield counter(
        "voids", "Times when the feed could not vouch for completeness and emptied memory.", feed.voided
    )


def _writes(node: Node) -> Families:
    writer = node.writer
    outcomes = {
        "written": writer.written,
        "mismatched": writer.mismatched,
        "failed": writer.failures,
        "uncertain": writer.uncertain,
        "refused": writer.refused,
    }
    yield counters("writes", "Writes to store caches, by outcome.", "outcome", outcomes)
    yield gauge("writes_waiting", "Writes that wait for a connection or for their turn.", writer.queued)
    swept = {"changes": node.retention.changes, "versions": node.retention.history}
    yield counters("swept_rows", "Rows that this node deleted from the schema snapring.", "kind", swept)


def _breaker(node: Node) -> Families:
    yield one_of("breaker_state", "The breaker before Postgres: 1 for its state.", STATES, node.breaker.state)
    yield counters(
        "breaker_transitions",
        "Changes of the breaker's state, by what it became.",
        "to",
        node.breaker.transitions,
    )
