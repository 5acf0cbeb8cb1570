"""``snapring bench KEY…``: a small load of reads, and what came of it: how many a second, how long, from where."""

import asyncio
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from time import perf_counter
from typing import Final

from cluster.commands import reach
from cluster.commands.get import demanded
from cluster.commands.outcomes import OK
from cluster.commands.run import Run, print_json, print_line, print_table
from snapring import AsyncClient, SnapringError

_SHOWN: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))


@dataclass(slots=True)
class Tally:
    """What happened: the seconds that each answer took, where it came from, and which errors there were."""

    took_s: "array[float]" = field(default_factory=lambda: array("d"))
    sources: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    last_error: SnapringError | None = None


def run(run: Run) -> int:
    """Ask for the keys in turn. The client's own work counts: one process of Python asks. Raises the last error if no
    read was answered, or one that would come again.
    """
    tally = Tally()
    began = perf_counter()
    asyncio.run(_load(run, tally))
    if tally.last_error is not None and not (tally.took_s and tally.last_error.retryable):
        raise tally.last_error
    answer = report(tally, perf_counter() - began)
    if run.terminal:
        _show(answer)
    else:
        print_json(answer)
    return OK


def report(tally: Tally, lasted_s: float) -> dict[str, object]:
    """What came of it, for programs: percentiles are of answers, nearest rank, in milliseconds; none without any."""
    took_s = sorted(tally.took_s)
    return {
        "gets": len(took_s),
        "seconds": round(lasted_s, 3),
        "gets_per_second": round(len(took_s) / lasted_s, 1),
        "latency_ms": {name: round(percentile(took_s, part) * 1000, 3) for name, part in _SHOWN if took_s},
        "sources": dict(tally.sources),
        "errors": dict(tally.errors),
    }


def percentile(ordered: Sequence[float], part: float) -> float:
    """The least of ``ordered`` that at least ``part`` of them do not exceed."""
    return ordered[max(0, -int(-part * len(ordered) // 1) - 1)]


async def _load(run: Run, tally: Tally) -> None:
    callers: int = run.arguments.callers
    async with reach.async_client(run, max_connections=callers) as client:
        ends = perf_counter() + run.arguments.duration
        async with asyncio.TaskGroup() as group:
            for first in range(callers):
                group.create_task(_ask(run, client, tally, first, ends))


async def _ask(run: Run, client: AsyncClient, tally: Tally, first: int, ends: float) -> None:
    """One caller: it begins at its own place among the keys, and ends at an error that would come again."""
    options = demanded(run)
    for key in islice(cycle(run.arguments.keys), first % len(run.arguments.keys), None):
        began = perf_counter()
        if began >= ends:
            return
        try:
            reply = await client.get(key, raw=True, **options)
        except SnapringError as error:
            tally.errors[error.code] += 1
            tally.last_error = error
            if not error.retryable:
                return
            await asyncio.sleep(_REST_S)
        else:
            tally.took_s.append(perf_counter() - began)
            tally.sources[reply.source or "together"] += 1


_REST_S: Final = 0.05
"""After an error, so that a node in trouble is not pestered."""


def _show(answer: dict[str, object]) -> None:
    latency, sources, errors = (answer[name] for name in ("latency_ms", "sources", "errors"))
    assert isinstance(latency, dict)
    assert isinstance(sources, dict)
    assert isinstance(errors, dict)
    print_line(f"{answer['gets_per_second']:,} gets/s ({answer['gets']:,} in {answer['seconds']} s)")
    if latency:
        print_table(tuple(latency), [[f"{ms:g} ms" for ms in latency.values()]])
    for name, counts in (("answered from", sources), ("errors", errors)):
        if counts:
            print_line(f"{name}: {', '.join(f'{what} {count:,}' for what, count in counts.items())}")
