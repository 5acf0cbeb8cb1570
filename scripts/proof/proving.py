"""A whole proof: ground, rounds of writers and readers, faults meanwhile, and the judgement."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any, Final

from cluster.tokens import TokenCodec
from scripts.proof.cluster import Disagreement, agreed
from scripts.proof.evidence import Evidence, evidence
from scripts.proof.fared import Fared, Trouble, fared
from scripts.proof.faults import FAULTS, Befalls, Fault, FaultFailed, needs_of
from scripts.proof.ground import Ground
from scripts.proof.judge import Verdict, judge
from scripts.proof.mutations import Mutation
from scripts.proof.nodes import NodeProcess
from scripts.proof.performance import Performance, performing
from scripts.proof.replies import Replies
from scripts.proof.report import say, summary
from scripts.proof.scenes import Scene
from scripts.proof.schedule import CALM_S, Event, NotRecovered, Step, answering, carry_out, plan, sides
from scripts.proof.together import in_all

_COMES_ROUND_S: Final = 3.0
"""How long a node that a fault had in its hands may need until it answers as before."""

_HOLDS_S: Final = 10.0
"""How long a breaker that has opened again and again may go on to refuse loads: its window."""


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

    @property
    def sides(self) -> list[list[Fault]]:
        """The faults that follow one another; those of different sides may happen at once."""
        apart = self.nodes > 1 and self.mutation is None
        return sides([FAULTS[name] for name in self.faults], apart=apart)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it; ``evidence`` where something is wrong."""

    summary: dict[str, Any]
    evidence: Evidence | None = None


async def prove(assignment: Assignment) -> Outcome:
    """Carry it out. Raises `ProgramFailed`, `FaultFailed`, `NotRecovered`, `TwoHops`, `EmbeddedUnavailable`."""
    if assignment.mutation is not None:
        assignment = replace(assignment, nodes=max(assignment.nodes, assignment.mutation.nodes))
    needs = needs_of(FAULTS[name] for name in assignment.faults)
    if needs.nodes > assignment.nodes:
        raise FaultFailed(f"these faults take {needs.nodes} nodes: say --nodes {max(3, needs.nodes)}")
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
        self._rngs = [Random(f"{assignment.seed} faults {side}") for side, _ in enumerate(assignment.sides)]
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
        began_s = monotonic()
        sides = zip(self._assignment.sides, self._rngs, strict=True)
        happened = await in_all(self._one_side(faults, seconds, rng) for faults, rng in sides)
        await asyncio.sleep(max(CALM_S if any(happened) else 0.0, began_s + seconds - monotonic()))

    async def _one_side(self, faults: Sequence[Fault], seconds: float, rng: Random) -> int:
        """Those of ``faults`` for which there is time; how many that was."""
        steps = plan(faults, seconds, rng)
        if self._assignment.mutation is not None:
            steps = [Step(calm_s=CALM_S, fault=fault) for fault in faults]
        await carry_out(
            self._performance.ground, steps, self._events, rng=rng, recovery=partial(self._recovery, faults)
        )
        return len(steps)

    async def _recovery(self, faults: Sequence[Fault]) -> None:
        """All nodes that no other fault has in its hands answer; and agree, after faults that befall them as such."""
        ground = self._performance.ground
        if self._assignment.mutation is None:  # without a guard it may well never come round
            key = self._performance.scene.keys[0].encode()
            await in_all(
                answering(node.port, key, excused=partial(_busy, ground, node))
                for node in tuple(ground.nodes)
            )
            if ground.views is not None and all(fault.befalls is Befalls.NODES for fault in faults):
                await _one_ring(ground)
        await ground.settled()

    def _judge(self, replies: Replies) -> Verdict:
        performance = self._performance
        codec = TokenCodec([performance.ground.secret])
        return judge(performance.scene.by_name, performance.chronicle.history, replies, codec)

    def _outcome(self, replies: Replies, verdict: Verdict, seconds: float) -> Outcome:
        performance, assignment = self._performance, self._assignment
        overall = self._fared(replies, self._began_s, monotonic())
        about = {
            "replies": self._judged,
            "commits": performance.chronicle.commits,
            "incarnations": performance.chronicle.eras,
            "faults": [self._told(event, replies) for event in self._events],
            "mutation": assignment.mutation.name if assignment.mutation else None,
            "seconds": round(seconds, 2),
            "seed": assignment.seed,
            "nodes": assignment.nodes,
            "failed_at_well_nodes": dict(overall.failed),
            "longest_s": round(overall.longest_s, 2),
            "loads": performance.survey.total("loads", "loads"),
            "forwarded": performance.survey.total("forwarding", "forwarded"),
        }
        kept = None if verdict.clean else self._evidence(replies, verdict, about)
        return Outcome(summary=summary(verdict, replies, about), evidence=kept)

    def _told(self, event: Event, replies: Replies) -> dict[str, Any]:
        """One fault, in seconds from the beginning, and how clients fared at the nodes that it left alone."""
        well = self._fared(replies, event.began_s, event.ended_s + event.recovered_s)
        return {
            **asdict(event),
            "began_s": event.began_s - self._began_s,
            "ended_s": event.ended_s - self._began_s,
            "befalls": FAULTS[event.name].befalls.value,
            "failed_elsewhere": dict(well.failed),
            "longest_elsewhere_s": round(well.longest_s, 2),
        }

    def _fared(self, replies: Replies, since_s: float, until_s: float) -> Fared:
        ground = self._performance.ground
        ports = {place.name: place.port for place in ground.places}
        troubles = [
            Trouble(port=ports[spell.node], began_s=spell.began_s, ended_s=spell.ended_s + _COMES_ROUND_S)
            for spell in ground.spells
        ]
        troubles += [
            Trouble(port=None, began_s=event.began_s, ended_s=event.ended_s + event.recovered_s + _HOLDS_S)
            for event in self._events
            if FAULTS[event.name].befalls is Befalls.SERVER
        ]
        return fared(replies, troubles, since_s=since_s, until_s=until_s)

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


def _busy(ground: Ground, node: NodeProcess) -> bool:
    """Whether a fault has ``node`` in its hands, or has taken it out of service."""
    return node.turn.locked() or node not in ground.nodes


async def _one_ring(ground: Ground) -> None:
    try:
        await agreed(ground.nodes)
    except Disagreement as error:
        raise NotRecovered(str(error)) from error


def _counted(nodes: int) -> str:
    return "the node are" if nodes == 1 else f"{nodes} nodes are"
