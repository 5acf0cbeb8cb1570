"""What a run says: schedules as readable steps and as JSON, and the figures."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from scripts.simulation.explore import Tally
from scripts.simulation.jobs import Done
from scripts.simulation.messages import Limits
from scripts.simulation.scenarios import SCENARIOS
from scripts.simulation.schedule import Failure
from scripts.simulation.world import STEPS, Step

_NODES: Final = ("A", "B")
_WORDS: Final = {
    "write": "{0} writes {1}",
    "prepare": "{0} is prepared",
    "commit": "{0} commits",
    "roll back": "{0} rolls back",
    "alter": "the table is altered",
    "crash": "PostgreSQL crashes and loses the last {0} commits",
    "trim": "old changes are trimmed",
    "poll": "{n} polls: PostgreSQL answers",
    "apply": "{n} applies what the poll brought",
    "stumble": "{n} fails in the middle of applying what the poll brought",
    "lose": "{n} loses the poll's answer",
    "load": "{n} loads {1}: PostgreSQL answers",
    "land": "{n} admits the loaded {1}",
    "hand": "{n} hands its entry {1} over to the other node",
    "evict": "{n} evicts {1}",
    "ask": "{n}: caller {1} asks for {2}, {3} (token {4} from the newest), and has {5} s",
    "cancel": "{n}: caller {1} gives up",
    "turn": "{n}: callback {1} of those that are ready runs",
    "serve": "{n}: PostgreSQL answers the load of {1} that callers wait for",
    "arrive": "{n}: that answer arrives: {1}",
    "fail": "{n}: the load of {1} fails",
    "wait": "{0} s pass",
}
assert _WORDS.keys() == STEPS.keys(), "every verb has words"


class Unreadable(Exception):
    """The file holds no schedule."""


@dataclass(slots=True, kw_only=True)
class Summary:
    """The sum of what was done."""

    seed: int
    mutation: str | None
    total: Tally = field(default_factory=Tally)
    drawn: int = 0
    explored: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, done: Done) -> None:
        """Count ``done`` in."""
        tally, total = done.tally, self.total
        total.steps += tally.steps
        total.inputs += tally.inputs
        total.schedules += tally.schedules
        total.interleavings += tally.interleavings
        total.cpu_s += tally.cpu_s
        if done.job.scenario is None:
            self.drawn += tally.schedules
        elif tally.whole and done.failure is None:
            figures = {
                "depth": done.job.depth,
                "schedules": tally.schedules,
                "interleavings": tally.interleavings,
            }
            self.explored[SCENARIOS[done.job.scenario].name] = figures

    def figures(self, elapsed_s: float) -> dict[str, Any]:
        """Everything but the failure, as JSON has it. Rates are per minute of wall clock."""
        total = self.total
        return {
            "seed": self.seed,
            "mutation": self.mutation,
            "seconds": round(elapsed_s, 3),
            "cpu_seconds": round(total.cpu_s, 3),
            "schedules": total.schedules,
            "schedules_per_minute": round(total.schedules / elapsed_s * 60),
            "schedules_drawn": self.drawn,
            "interleavings": total.interleavings,
            "interleavings_per_minute": round(total.interleavings / elapsed_s * 60),
            "steps": total.steps,
            "node_inputs": total.inputs,
            "explored": self.explored,
        }


def in_words(step: Step) -> str:
    """One step as a sentence."""
    verb, *arguments = step
    node = f"node {_NODES[arguments[0]]}" if arguments and isinstance(arguments[0], int) else ""
    return _WORDS[str(verb)].format(*arguments, n=node)


def listing(failure: Failure) -> str:
    """A failing schedule, a line for each step, and what went wrong."""
    lines = [f"{number:4}. {in_words(step)}" for number, step in enumerate(failure.steps, 1)]
    settings = ", ".join(f"{name} = {value}" for name, value in _changed(failure.limits).items())
    return "\n".join([*([f"      with {settings}"] if settings else []), *lines, f"      {failure.what}"])


def failure_json(failure: Failure, found_by: str, found_steps: int, mutation: str | None) -> dict[str, Any]:
    """What `read_failure` reads back, and what it says in words."""
    return {
        "what": failure.what,
        "found_by": found_by,
        "found_steps": found_steps,
        "mutation": mutation,
        "limits": asdict(failure.limits),
        "steps": failure.steps,
        "in_words": [in_words(step) for step in failure.steps],
    }


def read_failure(path: Path) -> tuple[Limits, tuple[Step, ...], str | None]:
    """The schedule in a file that a run wrote, and its mutation. Raises `Unreadable`."""
    try:
        written = json.loads(path.read_text())
        written = written.get("failure", written)
        steps = tuple(tuple(step) for step in written["steps"])
        if not all(step[0] in STEPS for step in steps):
            raise ValueError("it has steps that are none")
        return Limits(**written["limits"]), steps, written["mutation"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise Unreadable(f"{path} holds no schedule that can be replayed: {error!r}") from error


def _changed(limits: Limits) -> dict[str, int]:
    usual = asdict(Limits())
    return {name: value for name, value in asdict(limits).items() if value != usual[name]}
