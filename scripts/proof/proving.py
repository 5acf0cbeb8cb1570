"""A whole proof: ground, rounds of writers and readers, faults meanwhile, and the judgement."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

from cluster.tokens import TokenCodec
from scripts.proof.evidence import Evidence, evidence
from scripts.proof.faults import FAULTS, needs_of
from scripts.proof.judge import Verdict, judge
from scripts.proof.mutations import Mutation
from scripts.proof.performance import Performance, performing
from scripts.proof.replies import Replies
from scripts.proof.report import say, summary
from scripts.proof.scenes import Scene
from scripts.proof.schedule import CALM_S, Event, Step, answering, carry_out, plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What to prove, in rounds of ``round_s``; the first in which something is wrong is the last.

    ``template``: see `scripts.proof.ground`.
    """

    scene: Scene
    seconds: float
    round_s: float
    seed: int
    faults: Sequence[str] = ()
    mutation: Mutation | None = None
    template: Path | None = None
    nodes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it; ``evidence`` where something is wrong."""

    summary: dict[str, Any]
    evidence: Evidence | None = None


async def prove(assignment: Assignment) -> Outcome:
    """Carry it out. Raises `ProgramFailed`, `FaultFailed`, `NotRecovered`, `EmbeddedUnavailable`."""
    needs = needs_of(FAULTS[name] for name in assignment.faults)
    scene = replace(assignment.scene, server={**assignment.scene.server, **needs.settings})
    async with performing(
        scene,
        seed=assignment.seed,
        epoch=needs.epoch,
        stepping=needs.clock,
        mutation=assignment.mutation,
        template=assignment.template,
        nodes=assignment.nodes,
    ) as performance:
        say(f"PostgreSQL, the proxy and {_counted(assignment.nodes)} up; writers and readers begin")
        return await _Proof(assignment, performance).run()


class _Proof:
    def __init__(self, assignment: Assignment, performance: Performance) -> None:
        self._assignment = assignment
        self._performance = performance
        self._rng = Random(f"{assignment.seed} faults")
        self._events: list[Event] = []
        self._began_s = monotonic()
        self._judged = 0

    async def run(self) -> Outcome:
        """Round after round."""
        while True:
            left_s = self._began_s + self._assignment.seconds - monotonic()
            replies, _ = await self._performance.round(self._trouble(min(left_s, self._assignment.round_s)))
            seconds = monotonic() - self._began_s
            verdict = await asyncio.to_thread(self._judge, replies)
            self._judged += len(replies)
            if not verdict.clean or seconds >= self._assignment.seconds:
                return self._outcome(replies, verdict, seconds)

    async def _trouble(self, seconds: float) -> None:
        """Faults, and calm until the time is over; without a guard, each fault once, whatever time that takes."""
        began_s, ground = monotonic(), self._performance.ground
        faults = [FAULTS[name] for name in self._assignment.faults]
        steps = plan(faults, seconds, self._rng)
        if self._assignment.mutation is not None:
            steps = [Step(calm_s=CALM_S, fault=fault) for fault in faults]
        await carry_out(ground, steps, self._events, rng=self._rng, recovery=self._recovery)
        await asyncio.sleep(max(CALM_S if steps else 0.0, began_s + seconds - monotonic()))

    async def _recovery(self) -> None:
        ground = self._performance.ground
        if self._assignment.mutation is None:  # without a guard it may well never come round
            key = self._performance.scene.keys[0].encode()
            await asyncio.gather(*(answering(node.port, key) for node in ground.nodes))
        await ground.settled()

    def _judge(self, replies: Replies) -> Verdict:
        performance = self._performance
        codec = TokenCodec([performance.ground.secret])
        return judge(performance.scene.by_name, performance.chronicle.history, replies, codec)

    def _outcome(self, replies: Replies, verdict: Verdict, seconds: float) -> Outcome:
        performance, assignment = self._performance, self._assignment
        began_s = self._began_s
        happened = [
            {**asdict(event), "began_s": event.began_s - began_s, "ended_s": event.ended_s - began_s}
            for event in self._events
        ]
        about = {
            "replies": self._judged,
            "commits": performance.chronicle.commits,
            "incarnations": performance.chronicle.eras,
            "faults": happened,
            "mutation": assignment.mutation.name if assignment.mutation else None,
            "seconds": round(seconds, 2),
            "seed": assignment.seed,
            "nodes": assignment.nodes,
        }
        kept = None if verdict.clean else self._evidence(replies, verdict, about)
        return Outcome(summary=summary(verdict, replies, about), evidence=kept)

    def _evidence(self, replies: Replies, verdict: Verdict, about: dict[str, Any]) -> Evidence:
        performance = self._performance
        return evidence(
            performance.scene.by_name,
            performance.chronicle.history,
            replies,
            verdict,
            secret=performance.ground.secret,
            about=about,
        )


def _counted(nodes: int) -> str:
    return "the node are" if nodes == 1 else f"{nodes} nodes are"
