"""Fuzzing: whatever bytes others send, they are answered or refused, and nothing breaks or grows."""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from math import inf
from pathlib import Path

from rich.console import Console
from rich.table import Table

from scripts.fuzzing.breaks import BREAKS
from scripts.fuzzing.docket import DOCKET
from scripts.fuzzing.running import Bounds, Run, replay, run
from scripts.fuzzing.standing import Failed, standing

_MINUTES = 10.0
_WIDTH = 120


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it. 0 when nothing broke and nothing grew, 1 when something did, 2 when it could not run."""
    parsed = _parser().parse_args(arguments)
    if parsed.broken == "list":
        print("\n".join(f"{name:20} {entry.target:8} {entry.what}" for name, entry in BREAKS.items()))
        return 0
    if wrong := _wrong(parsed):
        print(f"fuzz: {wrong}", file=sys.stderr)
        return 2
    try:
        return _replay(parsed) if parsed.replay else _fuzz(parsed)
    except (Failed, OSError) as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fuzz: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    listed = "; ".join(f"{name}: {entry.what}" for name, entry in DOCKET.items())
    parser = argparse.ArgumentParser(
        prog="fuzz",
        description="Throws inputs bred by atheris at whatever reads what others send, one target after another, and "
        "holds what comes of each to what was promised.",
        epilog=listed,
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(DOCKET)} (default: all)")
    bound = parser.add_mutually_exclusive_group()
    bound.add_argument(
        "--minutes", type=_positive, default=_MINUTES, metavar="N", help=f"of each (default {_MINUTES:g})"
    )
    bound.add_argument("--executions", type=_count, metavar="N", help="of each, instead")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of chance (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where inputs that break something go")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="read such an input once more")
    parser.add_argument(
        "--apart",
        action="store_true",
        help="throw at a node in a process of its own, whose memory counts: resp alone",
    )
    parser.add_argument(
        "--break",
        dest="broken",
        metavar="NAME",
        help="plant one defect and stop once it is found, or 'list' them",
    )
    parser.add_argument("--database", metavar="URL", help="an empty one, in place of an embedded PostgreSQL")
    return parser


def _wrong(parsed: argparse.Namespace) -> str:
    """What is wrong with the call; empty if nothing is."""
    unknown = sorted(set(parsed.targets) - set(DOCKET))
    if unknown:
        return f"no target {', '.join(unknown)}; there are {', '.join(DOCKET)}"
    if parsed.replay and len(parsed.targets) != 1:
        return "--replay needs the one target that reads the file"
    if parsed.apart and (parsed.broken or not all(DOCKET[name].apart for name in parsed.targets or DOCKET)):
        return f"--apart is for {', '.join(name for name in DOCKET if DOCKET[name].apart)} alone, and plants nothing"
    if parsed.broken and parsed.broken not in BREAKS:
        return f"no defect {parsed.broken!r}; see --break list"
    if find_spec("atheris") is None:
        return "inputs are bred by atheris, which is built for Linux on x86-64 only: run it there"
    return ""


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < inf:
        raise argparse.ArgumentTypeError(f"not a positive number: {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"not a positive number: {text}")
    return value


def _replay(parsed: argparse.Namespace) -> int:
    (target,) = parsed.targets
    with standing(target, database=parsed.database, apart=parsed.apart) as stand:
        return 1 if replay(target, parsed.replay, stand) else 0


def _fuzz(parsed: argparse.Namespace) -> int:
    keep = parsed.keep or Path(tempfile.gettempdir()) / "snapring-fuzz"
    bounds = Bounds(
        seconds=3600 if parsed.executions else max(1, round(parsed.minutes * 60)),
        executions=parsed.executions,
    )
    runs: list[Run] = []
    for name in [BREAKS[parsed.broken].target] if parsed.broken else parsed.targets or DOCKET:
        print(f"fuzz: {name} …", file=sys.stderr, flush=True)
        with standing(name, database=parsed.database, apart=parsed.apart) as stand:
            runs.append(run(name, stand, bounds, seed=parsed.seed, keep=keep, planted=parsed.broken))
        if parsed.json:
            parsed.json.write_text(json.dumps([*map(_figures, runs)], indent=2) + "\n")
    _show(runs)
    return 0 if all(each.sound for each in runs) else 1


def _figures(each: Run) -> dict[str, object]:
    return {
        "target": each.target,
        "minutes": round(each.seconds / 60, 2),
        "executions": each.executions,
        "crashes": len(each.found),
        "edges": each.edges,
        "rss_start_mib": round(each.growth.start, 1),
        "rss_halfway_mib": round(each.growth.halfway, 1),
        "rss_end_mib": round(each.growth.end, 1),
        "rss_mib_per_minute": round(each.growth.per_minute, 3),
        "bounded": each.growth.bounded,
        "found": [*map(str, each.found)],
        "load_average": round(each.load_average, 2),
    }


def _show(runs: Sequence[Run]) -> None:
    table = Table(
        "target",
        "minutes",
        "executions",
        "edges",
        "crashes",
        "MiB: start",
        "half",
        "end",
        "per minute",
        "load average",
    )
    for each in runs:
        grown = each.growth
        table.add_row(
            each.target,
            f"{each.seconds / 60:.1f}",
            f"{each.executions:,}",
            f"{each.edges:,}",
            f"[red]{len(each.found)}[/]" if each.found else "0",
            f"{grown.start:.0f}",
            f"{grown.halfway:.0f}",
            f"{grown.end:.0f}",
            f"{grown.per_minute:+.2f}" + ("" if grown.bounded else " [red]GROWS[/]"),
            f"{each.load_average:.1f}",
        )
    Console(width=_WIDTH).print(table)
    for each in runs:
        for file in each.found:
            print(f"{file.with_suffix('.txt').read_text().rstrip().splitlines()[-1]}")
            print(f"  Replay it with: scripts/fuzz {each.target} --replay {file}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is stopped
    raise SystemExit(main())
