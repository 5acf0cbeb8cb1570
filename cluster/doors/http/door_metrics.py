"""What is counted of the doors for clients, and of the process."""

from collections.abc import Mapping

from cluster.distribution import Distribution
from cluster.doors.http.families import Families, counters, gauge, gauges, histograms
from cluster.doors.lines import Lines
from cluster.doors.resp.commands import Counts, requests
from cluster.memory.tallies import Tallies
from cluster.readiness import Readiness


def door_metrics(
    resp: Counts, tallies: Tallies, grpc: Mapping[str, int] | None, took: Mapping[str, Distribution]
) -> Families:
    """Of the doors: the RESP door's counts, and calls, watches and errors of the gRPC door, if there is one."""
    commands = {"resp": requests(resp, tallies)} | ({"grpc": grpc["calls"]} if grpc else {})
    errors = {"resp": resp.errors} | ({"grpc": grpc["errors"]} if grpc else {})
    yield counters("door_requests", "Requests that clients have made.", "door", commands)
    yield counters("door_errors", "Requests that were answered with an error.", "door", errors)
    yield histograms(
        "door_latency_seconds",
        "From a request to its answer, of a sample (http.sample_period).",
        "door",
        took,
    )
    yield gauges("door_connections", "Clients that are connected.", "door", {"resp": resp.connections})
    refused = {
        "full": resp.refused,
        "protocol_error": resp.protocol_errors,
        "slow_reader": resp.slow_readers,
        "idle": resp.idle_closed,
        "no_key_shown": resp.strangers,
        "key_revoked": resp.revoked,
    }
    yield counters(
        "resp_closed", "Connections that the RESP door refused or ended, by reason.", "reason", refused
    )
    yield gauge("resp_tracking", "Connections that keep values and are told when to let go.", resp.tracking)
    yield gauge("resp_tracked_keys", "Keys that they keep.", resp.tracked_keys)
    pushes = {"invalidation": resp.invalidations, "flush": resp.flushes}
    yield counters(
        "resp_pushes", "What they were told: keys to let go of, or to let go of all.", "kind", pushes
    )
    if grpc:
        yield gauge("grpc_watches", "Watches under way.", grpc["watches"])


def line_metrics(lines: Lines) -> Families:
    """Of the log's lines about requests."""
    yield counters("request_lines", "Lines in the log about requests, by kind.", "kind", lines.written)
    yield counters(
        "request_lines_left_out", "Those that were one too many in their second.", "kind", lines.left_out
    )


def readiness_metrics(readiness: Readiness) -> Families:
    """What `/readyz` says."""
    yield gauge("ready", "1 if clients should come to this node.", float(bool(readiness)))
    yield gauge("draining", "1 once the node has been told to stop.", float(readiness.draining))
