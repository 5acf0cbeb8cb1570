"""Every interleaving of a small scenario, down to a depth.

The steps that make sense are tried in every order: a tree whose leaves are complete schedules. Each edge is
one step, followed by `check`. Schedules share what they have in common: those that begin alike, their
beginning, and those that reach the very same world, all that follows. So there are two counts of schedules,
those whose last step was taken and checked here, and all those that the tree stands for.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from scripts.simulation.life import Stage
from scripts.simulation.messages import Limits, Violation
from scripts.simulation.schedule import Failure
from scripts.simulation.world import SIDES, Step, World, begin, check


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """``alphabet`` in any order, ``depth`` steps after ``opening``."""

    name: str
    alphabet: tuple[Step, ...]
    depth: int
    opening: tuple[Step, ...] = ()
    limits: Limits = field(default_factory=Limits)


@dataclass(slots=True)
class Tally:
    """How much was simulated.

    ``steps`` were taken and checked; ``inputs`` of them, and the retelling of them, the real nodes were given.
    ``schedules`` ended with a step taken and checked here; ``interleavings`` are those and all others that
    share their ends. ``cpu_s`` is what it took, in seconds of one processor. ``whole`` is False where not all of a tree was explored.
    """

    steps: int = 0
    inputs: int = 0
    schedules: int = 0
    interleavings: int = 0
    cpu_s: float = 0.0
    whole: bool = True


class _EnoughError(Exception):
    """Not all is to be explored."""


class Exploration:
    """All schedules of one scenario, or as many as can be explored before it is ``enough``."""

    def __init__(self, scenario: Scenario, enough: Callable[[], bool] = lambda: False) -> None:
        self._scenario = scenario
        self._enough = enough
        self._stages = tuple(Stage(scenario.limits) for _ in range(SIDES))
        self._known: dict[tuple[World, int], int] = {}
        self._path: list[Step] = []
        self.tally = Tally()

    def run(self) -> Failure | None:
        """Explore; what fails first, if anything."""
        scenario, tally = self._scenario, self.tally
        world = begin(self._stages)
        try:
            for step in scenario.opening:
                world = self._taken(world, step) or world
            tally.interleavings = self._below(world, scenario.depth)
        except Violation as violation:
            return Failure(limits=scenario.limits, steps=tuple(self._path), what=str(violation))
        except _EnoughError:
            tally.whole = False
            tally.interleavings = tally.schedules
        finally:
            tally.inputs = sum(stage.inputs for stage in self._stages)
        return None

    def _below(self, world: World, depth: int) -> int:
        """How many schedules go on from ``world`` for ``depth`` steps, each step of which is checked."""
        if depth == 1:
            return self._ends(world)
        known = self._known.get((world, depth))
        if known is not None:
            return known
        if self._enough():
            raise _EnoughError
        schedules = 0
        for step in self._scenario.alphabet:
            after = self._taken(world, step)
            if after is not None:
                schedules += self._below(after, depth - 1)
                self._path.pop()
        self._known[world, depth] = schedules
        return schedules

    def _ends(self, world: World) -> int:
        ends = 0
        for step in self._scenario.alphabet:
            if self._taken(world, step) is not None:
                self._path.pop()
                ends += 1
        self.tally.schedules += ends
        return ends

    def _taken(self, world: World, step: Step) -> World | None:
        """The checked world after ``step``, which then ends the path; None where there is no such step."""
        self._path.append(step)
        after = world.after(step)
        if after is None:
            self._path.pop()
            return None
        self.tally.steps += 1
        check(world, after, self._scenario.limits)
        return after
