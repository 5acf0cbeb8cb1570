"""The simulation: a node's decisions, in every order in which the world around it can happen."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

from scripts.simulation.jobs import Done, run
from scripts.simulation.mutations import MUTATIONS, mutated
from scripts.simulation.report import Summary, Unreadable, failure_json, listing, read_failure
from scripts.simulation.schedule import replay
from scripts.simulation.shrink import shrink

_SECONDS = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it. 0 when no promise was broken, 1 when one was, 2 when it could not run."""
    parsed = _parser().parse_args(arguments)
    if parsed.mutate == "list":
        print("\n".join(f"{name:36} {mutation.guard}" for name, mutation in MUTATIONS.items()))
        return 0
    if parsed.mutate is not None and parsed.mutate not in MUTATIONS:
        print(f"simulate: no mutation {parsed.mutate!r}; see --mutate list", file=sys.stderr)
        return 2
    try:
        return _replay(parsed) if parsed.replay else _simulate(parsed)
    except (Unreadable, OSError) as error:
        print(f"simulate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("simulate: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="simulate",
        description="Lets a model of PostgreSQL, two nodes' real decisions and their callers happen in every order, "
        "and holds every reply that the nodes could give after each step to the model's truth.",
    )
    bound = parser.add_mutually_exclusive_group()
    bound.add_argument("--seconds", type=_positive, metavar="N", help=f"how long (default {_SECONDS:g})")
    bound.add_argument(
        "--schedules", type=_count, metavar="N", help="how many, at least; the same every time"
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="of the first schedule drawn (default 1)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there")
    parser.add_argument("--mutate", metavar="NAME", help="switch one guard off, or 'list' them")
    parser.add_argument(
        "--replay", type=Path, metavar="FILE", help="play the failing schedule in what --json wrote"
    )
    parser.add_argument(
        "--workers",
        type=_count,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes (default: one per CPU)",
    )
    return parser


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


def _simulate(parsed: argparse.Namespace) -> int:
    began_s = monotonic()
    until_s = inf if parsed.schedules else began_s + (parsed.seconds or _SECONDS)
    summary = Summary(seed=parsed.seed, mutation=parsed.mutate)
    failed: Done | None = None
    for done in run(
        parsed.seed,
        parsed.mutate,
        workers=parsed.workers,
        until_s=until_s,
        schedules=parsed.schedules or sys.maxsize,
    ):
        summary.add(done)
        failed = done if done.failure is not None else failed
    figures = summary.figures(monotonic() - began_s)
    figures["failure"] = None if failed is None else _shortest(failed)
    _tell(figures)
    path = parsed.json
    if failed is not None and path is None:
        path = Path(tempfile.gettempdir()) / f"snapring-simulation-{parsed.seed}.json"
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n")
    if failed is not None:
        print(f"Replay it with: scripts/simulate --replay {path}")
    return 0 if failed is None else 1


def _shortest(failed: Done) -> dict[str, Any]:
    assert failed.failure is not None
    with mutated(failed.job.mutation):
        short = shrink(failed.failure)
    print(f"A promise is broken, found by {failed.found_by} in {len(failed.failure.steps)} steps, now in:")
    print(listing(short))
    return failure_json(short, failed.found_by, len(failed.failure.steps), failed.job.mutation)


def _tell(figures: dict[str, Any]) -> None:
    print(
        f"{figures['interleavings']:,} interleavings in {figures['seconds']:.1f} s: {figures['schedules']:,} schedules "
        f"to their last step ({figures['schedules_per_minute']:,} a minute), of which {figures['schedules_drawn']:,} "
        f"were drawn from seed {figures['seed']} on; {figures['steps']:,} steps checked"
    )
    for name, explored in figures["explored"].items():
        print(f"  every order to depth {explored['depth']:2} ({explored['interleavings']:,}): {name}")


def _replay(parsed: argparse.Namespace) -> int:
    limits, steps, mutation = read_failure(parsed.replay)
    with mutated(parsed.mutate or mutation):
        failure = replay(limits, steps)
    if failure is None:
        print(f"The {len(steps)} steps break no promise.")
        return 0
    print(listing(failure))
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
