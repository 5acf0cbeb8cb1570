"""The proof: foreign writers, readers of every kind and faults, and every reply held against the truth."""

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import psycopg

from cluster.embedded import EmbeddedUnavailable
from cluster.ending import when_told
from scripts.demonstration.programs import ProgramFailed
from scripts.proof.cluster import TwoHops
from scripts.proof.evidence import Evidence
from scripts.proof.faults import FAULTS, Befalls, FaultFailed
from scripts.proof.judge import judge
from scripts.proof.mutations import MUTATIONS
from scripts.proof.nodes import NodeEnded
from scripts.proof.proving import Assignment, Outcome, prove
from scripts.proof.report import report, say, summary
from scripts.proof.scenes import EVERYTHING
from scripts.proof.schedule import NotRecovered
from scripts.proof.truths import BY_NAME

PROVED, WRONG, COULD_NOT, INTERRUPTED = 0, 1, 2, 130

_ROUND_S: Final = 2.0
_SETS: Final = {"all": tuple(Befalls), "server": (Befalls.SERVER,), "nodes": (Befalls.NODES,), "none": ()}
_NODES: Final = 3
_MOST_NODES: Final = 9
_FAILURES: Final = (NodeEnded, NotRecovered, TwoHops)
"""The nodes' own, of which no reply tells."""
_COULD_NOT: Final = (EmbeddedUnavailable, FaultFailed, ProgramFailed, psycopg.Error, TimeoutError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prove, or judge again. 0: replies were judged and nothing is wrong; 1: something is; 2: could not run."""
    options = _parser().parse_args(arguments)
    if options.mutate == "list":
        print("\n".join(MUTATIONS))
        return PROVED
    if options.judge:
        return _judge_again(options.judge)
    assignment = _assignment(options)
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # of broken connections, it warns of each
    say(f"seed {assignment.seed}")
    try:
        with _few_collections():
            outcome = asyncio.run(_until_told(assignment))
    except (*_FAILURES, *_COULD_NOT) as error:
        print(f"prove: seed {assignment.seed}: {error}", file=sys.stderr)
        return WRONG if isinstance(error, _FAILURES) else COULD_NOT
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("prove: interrupted", file=sys.stderr)
        return INTERRUPTED
    return _show(outcome, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prove",
        description="Reads through Snapring nodes in every way there is, while writers and faults do their "
        "worst, and computes for every reply what the database held at the snapshot that the reply names.",
    )
    add = parser.add_argument
    add("--seconds", type=_positive, default=60.0, metavar="N", help="how long (default 60)")
    add(
        "--faults",
        type=_faults,
        default=["none"],
        metavar="NAMES",
        help="all, server (what befalls PostgreSQL and single nodes), nodes (what befalls them as a cluster), "
        "none (the default), or some: " + ", ".join(FAULTS),
    )
    add(
        "--mutate",
        choices=["list", *MUTATIONS],
        metavar="GUARD",
        help="run the nodes without this guard, until that is noticed; list: name them",
    )
    add(
        "--seed",
        type=int,
        metavar="N",
        help="draw everything from this (default: a random one, which is told)",
    )
    add("--json", type=Path, metavar="FILE", help="write the summary there")
    add("--keep", type=Path, metavar="FILE", help="where the evidence goes if something is wrong")
    add("--judge", type=Path, metavar="FILE", help="judge evidence again instead")
    add("--nodes", type=_nodes, metavar="N", help="nodes that act as one (default 3)")
    add("--writers", type=int, metavar="N", help="connections that write")
    add("--readers", type=int, metavar="N", help="plain readers, besides those of the other habits")
    add("--template", type=Path, metavar="DIR", help=argparse.SUPPRESS)
    return parser


def _assignment(options: argparse.Namespace) -> Assignment:
    scene, faults, round_s = EVERYTHING, options.faults, options.seconds
    nodes = options.nodes or _NODES
    if len(faults) == 1 and faults[0] in _SETS:
        faults = [
            name
            for name, fault in FAULTS.items()
            if fault.befalls in _SETS[faults[0]] and fault.needs.nodes <= nodes
        ]
    mutation = MUTATIONS[options.mutate] if options.mutate else None
    if mutation:
        scene, faults = mutation.scene, mutation.faults
        nodes = options.nodes or mutation.nodes
        round_s = _ROUND_S
    scene = scene.with_hands(writers=options.writers, plain_readers=options.readers)
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    return Assignment(
        scene=scene,
        seconds=options.seconds,
        round_s=round_s,
        seed=seed,
        faults=faults,
        mutation=mutation,
        template=options.template,
        nodes=nodes,
    )


async def _until_told(assignment: Assignment) -> Outcome:
    task = asyncio.current_task()
    assert task is not None
    # Ended from outside, it still stops what it started and removes what it made.
    when_told(task.cancel)
    return await prove(assignment)


@contextlib.contextmanager
def _few_collections() -> Iterator[None]:
    """Millions of records that are in no cycle need no look at every one of them."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _show(outcome: Outcome, options: argparse.Namespace) -> int:
    report(outcome.summary)
    if options.json:
        options.json.write_text(json.dumps(outcome.summary, indent=2) + "\n")
    if outcome.evidence:
        file = options.keep or Path(tempfile.mkdtemp(prefix="snapring-evidence-")) / "evidence.jsonl"
        outcome.evidence.write(file)
        print(f"seed {outcome.summary['seed']}; evidence: {file} (judge it again with --judge)")
        return WRONG
    return PROVED if outcome.summary["replies"] else COULD_NOT


def _judge_again(file: Path) -> int:
    kept = Evidence.read(file)
    verdict = judge(kept.caches(BY_NAME), kept.history, kept.replies, kept.codec)
    about: dict[str, Any] = {**kept.about, "replies": verdict.replies}
    report(summary(verdict, kept.replies, about))
    return PROVED if verdict.clean else WRONG


def _faults(text: str) -> list[str]:
    if text in _SETS:
        return [text]
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no fault is called {', '.join(unknown)}: there are {', '.join(FAULTS)}"
        )
    return names


def _nodes(text: str) -> int:
    value = int(text)
    if not 1 <= value <= _MOST_NODES:
        raise argparse.ArgumentTypeError(f"not of 1 to {_MOST_NODES}: {text}")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"not a positive number: {text}")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
