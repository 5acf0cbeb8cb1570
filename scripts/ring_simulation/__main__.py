"""The simulation of rings: 3 to 1,000 nodes, who owns what, what moves, and what following the database costs."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from scripts.ring_simulation.feeds import Costs, load
from scripts.ring_simulation.report import figures, tell
from scripts.ring_simulation.rings import cast, measure

SIZES: Final = (*range(3, 21), 50, 100, 300, 1000)
FED: Final = (3, 10, 20, 50, 100, 1000)
RATES: Final = (0, 1_000, 10_000, 50_000)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it. 0 when it ran, 2 when the figures could not be written."""
    parsed = _parser().parse_args(arguments)
    costs = Costs(
        period_ms=parsed.period_ms,
        poll_ms=parsed.poll_ms,
        row_us=parsed.row_us,
        cores=parsed.cores,
        budget=parsed.budget,
    )
    rings = [measure(cast(parsed.names, parsed.zones), nodes, parsed.leavers) for nodes in parsed.nodes]
    loads = [load(nodes, rate, costs) for rate in RATES for nodes in FED]
    tell(rings, loads, costs)
    if parsed.json:
        try:
            parsed.json.write_text(json.dumps(figures(rings, loads, costs), indent=2) + "\n")
        except OSError as error:
            print(f"simulate-ring: {error}", file=sys.stderr)
            return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="simulate-ring",
        description="Builds rings of many sizes with the node's own code, lets nodes join and leave, and works out "
        "what it costs the database that every node polls it.",
    )
    usual = Costs()
    parser.add_argument("--nodes", type=_sizes, default=SIZES, metavar="N,N", help="sizes of ring, 3 or more")
    parser.add_argument("--names", choices=("numbered", "arbitrary"), default="numbered")
    parser.add_argument("--zones", type=_count, default=1, metavar="N", help="of nodes in turn (default 1)")
    parser.add_argument("--leavers", type=_count, default=3, metavar="N", help="tried per size (default 3)")
    parser.add_argument("--period-ms", type=_positive, default=usual.period_ms, help="between polls")
    parser.add_argument("--poll-ms", type=_positive, default=usual.poll_ms, help="of the database, a poll")
    parser.add_argument(
        "--row-us", type=_positive, default=usual.row_us, help="of the database, a change and poll"
    )
    parser.add_argument("--cores", type=_count, default=usual.cores, help="of the database")
    parser.add_argument("--budget", type=_positive, default=usual.budget, help="part of them for the feed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(map(int, text.split(",")))
    if min(sizes) < 3:
        raise argparse.ArgumentTypeError(f"not sizes of 3 or more: {text}")
    return sizes


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"not a positive number: {text}")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"not a positive number: {text}")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
