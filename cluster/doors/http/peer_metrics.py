"""What is counted of a node among others: who answered in its place, what was handed over, and the ring."""

from collections import Counter
from typing import TYPE_CHECKING

from cluster.breaker import STATES
from cluster.doors.http.families import Families, counter, counters, gauge, gauges

if TYPE_CHECKING:
    from cluster.peering.place import Among


def peer_metrics(among: "Among") -> Families:
    """Of ``among``."""
    yield from _forwarding(among)
    yield from _sharing(among)
    yield from _ring(among)


def _forwarding(among: "Among") -> Families:
    reads, breakers = among.reads, among.reads.breakers
    yield counter("forwarded", "Reads that other nodes were to answer.", reads.forwarded)
    yield counter("fallbacks", "Forwarded reads that came back to this node.", reads.fallbacks)
    yield counter(
        "fallbacks_refused", "Those of them that were one too many at once.", reads.takeovers.refused
    )
    yield counter("hops_failed", "Calls to other nodes that failed.", reads.hops_failed)
    yield counter(
        "hops_skipped", "Calls that were not made, as the peer's breaker was open.", breakers.skipped
    )
    answering = among.answering
    questions = {
        "at_once": answering.at_once,
        "later": answering.later,
        "differing": answering.differing,
    }
    yield counters(
        "peer_questions",
        "Reads that other nodes asked of this one: answered at once, later, or about a cache that differs here.",
        "outcome",
        questions,
    )
    yield counter("answers_unfit", "Answers of other nodes that were none to what was asked.", reads.unfit)
    states = Counter(breakers.states().values())
    yield gauges(
        "peer_breakers",
        "Other nodes that have failed once, by the state of their breaker.",
        "state",
        {state: states[state] for state in STATES},
    )
    yield counters(
        "peer_breaker_transitions",
        "Changes of these states, by what they became.",
        "to",
        breakers.transitions,
    )


def _sharing(among: "Among") -> Families:
    sharing = among.sharing
    copies = {
        "filled": sharing.filled,
        "handed_over": sharing.handed_over,
        "kept": sharing.kept,
        "fetched": sharing.fetched,
        "missed": sharing.missed,
        "dropped": sharing.dropped,
    }
    yield counters(
        "handoffs",
        "Entries that travelled: filled (to the backup), handed_over (on leaving), kept (from others), fetched "
        "(asked for), missed (nobody had one), dropped (no room to wait).",
        "kind",
        copies,
    )


def _ring(among: "Among") -> Families:
    membership = among.membership
    ring, me = membership.ring, membership.me.name
    members = {member.name for member in ring.members}
    share = len(ring.slots(me)) / len(ring.owners) if me in members else 0.0
    disagreeing = membership.describe()["disagreeing"]
    assert isinstance(disagreeing, list), "it lists names"
    yield gauge("ring_share", "The part of the slots that this node owns, 0 to 1.", share)
    yield gauge("ring_members", "Nodes in the ring.", len(members))
    yield gauge("ring_disagreeing", "Nodes that last named another ring than this node's.", len(disagreeing))
    yield counter("ring_changes", "Rings that this node has had, but for its first.", membership.changes)
    yield counter("ring_mismatches", "Messages that came with another ring.", membership.mismatches)
