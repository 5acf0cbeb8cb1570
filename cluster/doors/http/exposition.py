"""All metrics of one node, in one registry: nothing is counted for it that is not counted anyway."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from time import monotonic
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import InfoMetricFamily
from prometheus_client.registry import Collector

from cluster.access.guard import Guard
from cluster.doors.http.access_metrics import access_metrics
from cluster.doors.http.door_metrics import door_metrics, line_metrics, readiness_metrics
from cluster.doors.http.families import Families
from cluster.doors.http.node_metrics import node_metrics
from cluster.doors.http.peer_metrics import peer_metrics
from cluster.doors.http.read_metrics import read_metrics
from cluster.doors.lines import Lines
from cluster.doors.resp.commands import Counts
from cluster.doors.sampling import Sampling
from cluster.node import Node
from cluster.readiness import Readiness

if TYPE_CHECKING:
    from cluster.doors.grpc.calls import Calls
    from cluster.peering.place import Among


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the numbers are. ``among`` is None for a node by itself, ``grpc`` where there is no such door."""

    node: Node
    readiness: Readiness
    resp: Counts
    grpc: "Calls | None" = None
    among: "Among | None" = None
    sampling: Sampling | None = None
    guard: Guard | None = None
    lines: Lines | None = None
    clock: Callable[[], float] = monotonic


class _Collected(Collector):
    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Families:
        """Called by the registry at each scrape."""
        sources = self._sources
        node, among, calls = sources.node, sources.among, sources.grpc
        yield _build(node)
        yield from readiness_metrics(sources.readiness)
        yield from read_metrics(node)
        yield from node_metrics(node, sources.clock())
        if among is not None:
            yield from peer_metrics(among)
        grpc = {"calls": calls.calls, "errors": calls.errors, "watches": calls.watches} if calls else None
        took = sources.sampling.took if sources.sampling else {}
        yield from door_metrics(sources.resp, node.store.tallies, grpc, took)
        if sources.lines is not None:
            yield from line_metrics(sources.lines)
        if sources.guard is not None:
            yield from access_metrics(sources.guard)


def registry_of(sources: Sources) -> CollectorRegistry:
    """What ``sources`` say at each scrape, and what the system says of the process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(sources))
    ProcessCollector(registry=registry)
    return registry


def _build(node: Node) -> Metric:
    about = {"version": version("snapring-node"), "node": node.config.name}
    return InfoMetricFamily("snapring_build", "The node and its release.", value=about)
