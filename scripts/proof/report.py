"""What came of a proof: the object that ``--json`` writes, and the words on the screen. Pure but for printing."""

import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from scripts.proof.faults import Befalls
from scripts.proof.judge import KINDS, Verdict
from scripts.proof.replies import Asked, Replies

_EXAMPLES: Final = 5


def summary(verdict: Verdict, replies: Replies, more: Mapping[str, object]) -> dict[str, object]:
    """Counts and times; ``more`` comes on top."""
    staleness = verdict.staleness
    answered = replies.sources.total()
    asked = Counter(replies.columns["asked"])
    by_key = Counter(replies.columns["key"])
    caches: Counter[str] = Counter()
    for number, key in enumerate(replies.keys):
        caches[(key or b"").decode().partition(":")[0]] += by_key[number]
    return {
        "replies": verdict.replies,
        **verdict.counts,
        "staleness_p50_ms": round(staleness.at(0.5) * 1e3, 1),
        "staleness_p99_ms": round(staleness.at(0.99) * 1e3, 1),
        "staleness_max_ms": round(staleness.at(1.0) * 1e3, 1),
        "hit_ratio": round(replies.sources[b"local"] / answered, 4) if answered else 0.0,
        "asked": {consistency.name.lower(): asked[consistency] for consistency in Asked},
        "caches": {name: count for name, count in caches.items() if name},
        "errors": dict(replies.errors.most_common()),
        "examples": [f"{each.kind}: {each.words}" for each in verdict.violations[:_EXAMPLES]],
        **more,
    }


def say(text: str) -> None:
    """A word on what is being done, apart from the results."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def report(summed: Mapping[str, Any]) -> None:
    """Print how it went."""
    get = summed.__getitem__
    counts = ", ".join(f"{get(kind)} {kind.replace('_', ' ')}" for kind in KINDS)
    print(
        f"\n{get('replies'):,} replies judged by the history of {get('commits'):,} commits: {counts}\n"
        f"{get('replies') / max(get('seconds'), 1e-9):,.0f} a second for {get('seconds'):.0f} s,"
        f" {get('hit_ratio'):.1%} from the memory of the node asked; {get('loads'):,} loads{_among(summed)};"
        f" {get('incarnations')} incarnations\n"
        f"staleness p50 {get('staleness_p50_ms')} ms, p99 {get('staleness_p99_ms')} ms,"
        f" max {get('staleness_max_ms')} ms"
    )
    for fault in get("faults"):
        print(
            f"at {fault['began_s']:.1f} s {fault['name']}: {fault['detail']};"
            f" answering again after {fault['recovered_s']:.1f} s{_elsewhere(fault)}"
        )
    if summed["errors"]:
        print("no answer: " + ", ".join(f"{code} {number:,}" for code, number in get("errors").items()))
    if get("faults"):
        print(
            f"where nothing was broken: {_counted(get('failed_at_well_nodes'))}, none took over {get('longest_s')} s"
        )
    for example in get("examples"):
        print(example)


def _among(summed: Mapping[str, Any]) -> str:
    """What the nodes did for each other, where there are several. A second hop would have ended the proof."""
    return (
        f"; {summed['nodes']} nodes, {summed['forwarded']:,} reads forwarded, none twice"
        if summed["nodes"] > 1
        else ""
    )


def _elsewhere(fault: Mapping[str, Any]) -> str:
    """How clients of the other nodes fared: where PostgreSQL is what breaks, there are none."""
    if fault["befalls"] != Befalls.NODES.value:
        return ""
    return (
        f"; elsewhere {_counted(fault['failed_elsewhere'])}, none took over {fault['longest_elsewhere_s']} s"
    )


def _counted(failed: Mapping[str, int]) -> str:
    codes = ", ".join(f"{code} {number:,}" for code, number in failed.items())
    return f"{sum(failed.values()):,} requests failed{f' ({codes})' if codes else ''}"
