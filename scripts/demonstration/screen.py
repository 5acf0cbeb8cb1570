"""What the run looks like while it goes on: a live table on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

LIVE_PERIOD_S: Final = 0.25
PLAIN_PERIOD_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One look at the run. Rates are of the time since the previous frame."""

    elapsed_s: float
    total_s: float
    reads_per_s: float
    writers_tps: float
    hit_ratio: float
    reads: int
    database_reads: int
    staleness_p50_ms: float
    staleness_p99_ms: float
    checked: int
    waiting: int
    wrong: int
    errors: int
    breaker: str
    watermark_age_ms: float
    nodes: Sequence[Mapping[str, Any]] = ()


class Screen(Protocol):
    """Shows frames; ``period_s`` is how often it wants one."""

    period_s: float

    def show(self, frame: Frame) -> None:
        """Show ``frame`` in place of the one before it."""


class PlainScreen:
    """A line per frame."""

    period_s = PLAIN_PERIOD_S

    def show(self, frame: Frame) -> None:
        """Print ``frame`` as one line."""
        print(
            f"{frame.elapsed_s:5.1f} s  {frame.reads_per_s:,.0f} reads/s  hits {frame.hit_ratio:.1%}  "
            f"staleness p99 {frame.staleness_p99_ms:.1f} ms  writers {frame.writers_tps:.0f} tps  "
            f"checked {frame.checked:,}  wrong {frame.wrong}  breaker {frame.breaker}",
            flush=True,
        )


class LiveScreen:
    """A table that redraws itself."""

    period_s = LIVE_PERIOD_S

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, frame: Frame) -> None:
        """Draw ``frame`` over the previous one."""
        table = Table(title=f"Snapring: {frame.elapsed_s:.0f} of {frame.total_s:.0f} s", title_justify="left")
        table.add_column("what")
        table.add_column("value", justify="right", min_width=14)
        table.add_column("meaning", style="dim")
        for name, value, meaning in _lines(frame):
            table.add_row(name, value, meaning)
        self._live.update(table, refresh=True)


@contextmanager
def screen() -> Iterator[Screen]:
    """The screen that fits standard output."""
    console = Console()
    if not console.is_terminal:
        yield PlainScreen()
        return
    with Live(console=console, auto_refresh=False) as live:
        yield LiveScreen(live)


def say(text: str) -> None:
    """A word on what is being done, apart from the results."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def _lines(frame: Frame) -> Iterator[tuple[str, str, str]]:
    saved = max(0, frame.reads - frame.database_reads)
    wrong = f"[bold {'red' if frame.wrong else 'green'}]{frame.wrong}[/]"
    yield "wrong replies", wrong, f"of {frame.checked:,} compared with the database at their snapshot"
    yield "reads/s", f"{frame.reads_per_s:,.0f}", "answered by all nodes together"
    yield "hit ratio", f"{frame.hit_ratio:.1%}", "answered out of memory"
    yield "database reads saved", f"{saved:,}", f"{frame.database_reads:,} made"
    yield "staleness p50", f"{frame.staleness_p50_ms:.1f} ms", "a reply's age behind the commits it lacks"
    yield "staleness p99", f"{frame.staleness_p99_ms:.1f} ms", ""
    yield "foreign writers", f"{frame.writers_tps:,.0f} tps", "pgbench, straight to PostgreSQL"
    yield (
        "watermark age",
        f"{frame.watermark_age_ms:.1f} ms",
        "how far the last of the nodes is behind, as it says",
    )
    yield "breaker", frame.breaker, "closed: PostgreSQL answers"
    yield "errors", f"{frame.errors:,}", f"{frame.waiting:,} replies wait to be compared"
    if len(frame.nodes) > 1:
        for node in frame.nodes:
            yield node["name"], f"{node['share']:.1%}", f"of the keys; {_did(node)}"


def _did(node: Mapping[str, Any]) -> str:
    return f"{node['hit_ratio']:.1%} out of its memory, {node['forwarded']:,} reads passed on"


def report(summary: Mapping[str, Any]) -> None:
    """Print how it went."""
    get = summary.__getitem__
    print(
        f"\n{get('replies'):,} replies compared with the database at their own snapshot: {get('wrong')} wrong\n"
        f"{get('reads_per_s'):,.0f} reads/s for {get('seconds'):.0f} s against {get('writers_tps'):.0f} foreign "
        f"transactions/s\n"
        f"{get('hit_ratio'):.1%} answered from memory; {get('database_reads'):,} database reads instead of "
        f"{get('reads'):,}\n"
        f"staleness p50 {get('staleness_p50_ms')} ms, p99 {get('staleness_p99_ms')} ms, "
        f"max {get('staleness_max_ms')} ms (by {get('staleness_by')})"
    )
    if len(get("nodes")) > 1:
        for node in get("nodes"):
            print(f"{node['name']}: {node['share']:.1%} of the keys; {_did(node)}")
    for example in summary["wrong_examples"]:
        print(f"wrong: {example}")
    if summary["errors"]:
        print(f"errors: {summary['errors']}")
