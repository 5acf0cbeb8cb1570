"""What is counted of reads, by cache: how many there were, and where their answers came from."""

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily

from cluster.doors.http.families import Families, counter, counters
from cluster.memory.tallies import Tallies
from cluster.node import Node


def read_metrics(node: Node) -> Families:
    """Of the reads that ``node`` was asked for, wherever their answers came from."""
    tallies = node.store.tallies
    yield counters(
        "lookups",
        "Reads that this node was asked for, by clients and by other nodes.",
        "cache",
        {cache: tally.lookups for cache, tally in tallies.items()},
    )
    yield _hits(tallies)
    yield counters(
        "misses",
        "Reads that memory had no answer to and the node did itself.",
        "cache",
        {cache: tally.misses for cache, tally in tallies.items()},
    )
    yield counter("stale_served", "Reads answered out of memory, labelled STALE.", node.stale)
    yield counter("read_errors", "Reads that ended in an error.", node.errors)
    yield counter(
        "flight_waits", "Reads that joined a load under way instead of beginning one.", node.flights.joined
    )


def _hits(tallies: Tallies) -> Metric:
    family = CounterMetricFamily(
        "snapring_hits",
        "Reads answered without a load by this node: out of its memory, or by the node or backup that it asked.",
        labels=("cache", "source", "state"),
    )
    for cache, tally in tallies.items():
        for (source, state), answers in tally.answers().items():
            family.add_metric((cache, source.value, state.value), answers)
    return family
