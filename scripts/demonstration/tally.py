"""What was counted: totals, rates and percentiles of a run. Pure; the clock is the caller's."""

from collections import Counter
from collections.abc import Iterable, Mapping
from math import ceil, isfinite

from scripts.demonstration.checker import Verdict

_BUCKETS_PER_S = 10_000  # percentiles are exact to 0.1 ms
_EXAMPLES = 5


class Percentiles:
    """Durations counted in buckets of 0.1 ms: bounded memory, exact ranks."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()

    def add(self, duration_s: float) -> None:
        """Count one duration."""
        self._buckets[ceil(duration_s * _BUCKETS_PER_S)] += 1

    def at(self, fraction: float) -> float:
        """The duration in seconds that ``fraction`` of all do not exceed; 0 where there are none."""
        rank = ceil(self._buckets.total() * fraction)
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                return bucket / _BUCKETS_PER_S
        return 0.0


class Tally:
    """Everything the demonstration counts."""

    def __init__(self) -> None:
        self.staleness = Percentiles()
        self.checked = 0
        self.wrong = 0
        self.examples: list[str] = []
        self.plain_reads = 0
        self.errors: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()

    def judged(self, verdicts: Iterable[Verdict]) -> None:
        """Count verdicts, and keep the first few faults as examples."""
        for verdict in verdicts:
            self.checked += 1
            if isfinite(verdict.staleness_s):
                self.staleness.add(verdict.staleness_s)
            if verdict.fault is not None:
                self.wrong += 1
                self.examples = [*self.examples, verdict.fault][:_EXAMPLES]

    @property
    def reads(self) -> int:
        """Every answer received, checked or plain."""
        return self.sources.total() + self.plain_reads

    @property
    def hit_ratio(self) -> float:
        """The part of the answers with a source that came out of memory."""
        answered = self.sources.total()
        return self.sources["local"] / answered if answered else 0.0


def summary(
    tally: Tally,
    *,
    seconds: float,
    timed: bool,
    database_reads: int,
    transactions: int,
    more: Mapping[str, object],
) -> dict[str, object]:
    """The object that ``--json`` writes; ``more`` comes on top."""
    return {
        "seconds": round(seconds, 2),
        "replies": tally.checked,
        "wrong": tally.wrong,
        "wrong_examples": tally.examples,
        "hit_ratio": round(tally.hit_ratio, 4),
        "reads": tally.reads,
        "reads_per_s": round(tally.reads / seconds, 1),
        "plain_reads": tally.plain_reads,
        "database_reads": database_reads,
        "database_reads_saved": tally.reads - database_reads,
        "errors": dict(tally.errors),
        "staleness_p50_ms": round(tally.staleness.at(0.5) * 1e3, 1),
        "staleness_p99_ms": round(tally.staleness.at(0.99) * 1e3, 1),
        "staleness_max_ms": round(tally.staleness.at(1.0) * 1e3, 1),
        "staleness_by": "commit timestamps" if timed else "the replies' own age",
        "writers_tps": round(transactions / seconds, 1),
        **more,
    }
