"""Schedules: lists of steps, drawn from a seed or given, played on a new world."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Final

from scripts.simulation.life import Stage
from scripts.simulation.messages import Limits, Violation
from scripts.simulation.model import KEYS, TARGETS
from scripts.simulation.world import SIDES, STEPS, Step, World, begin, check

_TRANSACTIONS: Final = ("T1", "T2", "T3")
_NODES: Final = tuple(range(SIDES))
_CALLERS: Final = (1, 2, 3)
_ARGUMENTS: Final[dict[str, tuple[Sequence[str | int], ...]]] = {
    "write": (_TRANSACTIONS, TARGETS),
    "prepare": (_TRANSACTIONS,),
    "commit": (_TRANSACTIONS,),
    "roll back": (_TRANSACTIONS,),
    "alter": (),
    "crash": ((0, 1, 2),),
    "trim": (),
    "poll": (_NODES,),
    "apply": (_NODES,),
    "stumble": (_NODES,),
    "lose": (_NODES,),
    "load": (_NODES, KEYS),
    "land": (_NODES, KEYS),
    "hand": (_NODES, KEYS),
    "evict": (_NODES, KEYS),
    "ask": (
        _NODES, _CALLERS, KEYS, ("bounded", "strong", "at least", "ticket", "exactly"), (0, 1, 2, 3), (2, 12, 50),
    ),
    "cancel": (_NODES, _CALLERS),
    "turn": (_NODES, (0, 0, 0, 1, 2)),
    "serve": (_NODES, KEYS),
    "arrive": (_NODES, KEYS),
    "fail": (_NODES, KEYS),
    "wait": ((1, 2, 5),),
}  # fmt: skip
"""What each verb's arguments are drawn from."""
_WEIGHTS: Final = {
    "write": 6, "prepare": 1, "commit": 8, "roll back": 2, "alter": 0.5, "crash": 0.4, "trim": 0.7, "poll": 8,
    "apply": 8, "stumble": 0.5, "lose": 0.7, "load": 4, "land": 6, "hand": 2, "evict": 1, "ask": 8, "cancel": 1,
    "turn": 40, "serve": 12, "arrive": 12, "fail": 0.5, "wait": 1,
}  # fmt: skip
_ALWAYS: Final = ("write", "commit", "poll", "apply")
_CALLS: Final = ("ask", "serve", "arrive", "turn")
"""Drawn from all together or not at all: callers whom nobody answers tell nothing."""
_SHARE: Final = 0.7
"""Of the other verbs, how many a schedule draws from."""
_TRIES: Final = 50
"""How often a step is drawn until one makes sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A schedule whose last step breaks a promise."""

    limits: Limits
    steps: tuple[Step, ...]
    what: str


class Play:
    """A world that steps are played on, each followed by `check`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.world: World = begin(tuple(Stage(limits) for _ in range(SIDES)))
        self.steps: list[Step] = []

    def step(self, step: Step) -> bool:
        """Take ``step``; False where there is no such step. Raises `Violation`."""
        before = self.world
        self.steps.append(step)
        after = before.after(step)
        if after is None:
            self.steps.pop()
            return False
        check(before, after, self._limits)
        self.world = after
        return True

    def end(self) -> None:
        """Fail the loads under way and wait until every caller must have its answer."""
        for n, side in enumerate(self.world.sides):
            for key in side.life.seen.waiting:
                self.step(("fail", n, key))
        for _ in range(3):
            self._turn_all()
            self.step(("wait", 100))
        self._turn_all()

    def _turn_all(self) -> None:
        for n in _NODES:
            while self.step(("turn", n, 0)):
                for key in self.world.sides[n].life.seen.waiting:
                    self.step(("fail", n, key))


def replay(limits: Limits, steps: Iterable[Step]) -> Failure | None:
    """What goes wrong when ``steps`` are played; those that make no sense are left out."""
    play = Play(limits)
    try:
        for step in steps:
            play.step(step)
    except Violation as violation:
        return Failure(limits=limits, steps=tuple(play.steps), what=str(violation))
    return None


def wander(seed: int, length: int) -> tuple[int, Failure | None]:
    """Play ``length`` steps drawn from ``seed``, then end. Returns how many steps it played, and what failed.

    Each schedule has settings of its own and draws from some of the verbs only (swarm testing, Groce et al.,
    ISSTA 2012): what needs a rare mix is then found sooner.
    """
    random = Random(seed)
    limits = _limits(random)
    play = Play(limits)
    try:
        draws = _draws(random)
        for _ in range(length):
            any(map(play.step, islice(draws, _TRIES)))
        play.end()
    except Violation as violation:
        return len(play.steps), Failure(limits=limits, steps=tuple(play.steps), what=str(violation))
    return len(play.steps), None


def _limits(random: Random) -> Limits:
    return Limits(
        log_max_changes=random.choice((1, 4, 100)),
        log_retention_s=random.choice((3, 1_000)),
        max_changes_per_poll=random.choice((2, 100, 100)),
        memory_bytes=random.choice((700, 1_100, 2_100, 2**20, 2**20, 2**20)),
    )


def _draws(random: Random) -> Iterator[Step]:
    """Steps without end, whether they make sense or not."""
    calls = _CALLS if random.random() < _SHARE else ()
    others = [verb for verb in STEPS if verb not in (*_ALWAYS, *_CALLS) and random.random() < _SHARE]
    verbs = [*_ALWAYS, *calls, *others]
    weights = [_WEIGHTS[verb] for verb in verbs]
    while True:
        verb = random.choices(verbs, weights)[0]
        yield (verb, *map(random.choice, _ARGUMENTS[verb]))
