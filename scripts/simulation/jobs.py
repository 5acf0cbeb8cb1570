"""What a run consists of: an endless list of jobs, the same for the same seed, done by a few processes.

Explorations of every scenario alternate with schedules drawn at random; from round to round they go deeper.
Results are taken in the order of the jobs, so which failure is the first does not depend on who was faster.
"""

import gc
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, repeat
from multiprocessing.sharedctypes import RawValue
from time import monotonic, process_time
from typing import Any, Final

from scripts.simulation.explore import Exploration, Tally
from scripts.simulation.mutations import mutated
from scripts.simulation.scenarios import SCENARIOS
from scripts.simulation.schedule import Failure, wander

LENGTH: Final = 60
"""How many steps a schedule drawn at random has, without those that end it."""
_BATCH: Final = 50
_SHALLOWER: Final = 3
_DEEPER: Final = 1
_GARBAGE: Final = (50_000, 10, 10)
"""The collector's thresholds: what is explored is kept anyway, so looking at it often is in vain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Explore ``scenario`` to ``depth``, or where there is none draw schedules from ``seeds``."""

    mutation: str | None
    seeds: range = range(0)
    scenario: int | None = None
    depth: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What came of a job. ``found_by`` names the seed or scenario that failed, if one did."""

    job: Job
    tally: Tally
    failure: Failure | None = None
    found_by: str = ""


def jobs(seed: int, mutation: str | None) -> Iterator[Job]:
    """Every job of a run, without end."""
    explorations = (
        Job(mutation=mutation, scenario=number, depth=scenario.depth + beyond)
        for beyond in range(-_SHALLOWER, _DEEPER + 1)
        for number, scenario in enumerate(SCENARIOS)
    )
    for exploration in chain(explorations, repeat(None)):
        yield Job(mutation=mutation, seeds=range(seed, seed + _BATCH))
        seed += _BATCH
        if exploration is not None:
            yield exploration


def do(job: Job, enough: Callable[[], bool] = lambda: False) -> Done:
    """Do ``job``, or as much of it as can be done before it is ``enough``."""
    began_s = process_time()
    with mutated(job.mutation):
        done = _draw(job, enough) if job.scenario is None else _explore(job, enough)
    done.tally.cpu_s = process_time() - began_s
    return done


def run(seed: int, mutation: str | None, *, workers: int, until_s: float, schedules: int) -> Iterator[Done]:
    """Jobs done, in order: until the monotonic ``until_s``, until so many ``schedules`` or until one fails."""
    todo = jobs(seed, mutation)
    under_way: deque[Future[Done]] = deque()
    stopped = RawValue("b", False)
    with ProcessPoolExecutor(workers, initializer=_work, initargs=(stopped, until_s)) as pool:
        try:
            while schedules > 0:
                while len(under_way) <= workers and monotonic() < until_s:
                    under_way.append(pool.submit(_do, next(todo)))
                if not under_way:
                    return
                done = under_way.popleft().result()
                yield done
                schedules = 0 if done.failure else schedules - done.tally.schedules
        finally:
            stopped.value = True
            pool.shutdown(cancel_futures=True)


_enough: Callable[[], bool]
"""Of a worker."""


def _work(stopped: Any, until_s: float) -> None:
    """Begin a worker, which ends when it is told to."""
    global _enough  # noqa: PLW0603 - how a pool hands on what cannot travel with a job
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    gc.set_threshold(*_GARBAGE)

    def enough() -> bool:
        return stopped.value or monotonic() >= until_s

    _enough = enough


def _do(job: Job) -> Done:
    return do(job, _enough)


def _draw(job: Job, enough: Callable[[], bool]) -> Done:
    tally = Tally()
    for seed in job.seeds:
        if enough():
            break
        steps, failure = wander(seed, LENGTH)
        tally.steps += steps
        tally.inputs += steps
        tally.schedules += 1
        tally.interleavings += 1
        if failure is not None:
            return Done(job=job, tally=tally, failure=failure, found_by=f"seed {seed}")
    return Done(job=job, tally=tally)


def _explore(job: Job, enough: Callable[[], bool]) -> Done:
    assert job.scenario is not None
    scenario = replace(SCENARIOS[job.scenario], depth=job.depth)
    exploration = Exploration(scenario, enough)
    failure = exploration.run()
    found_by = f"scenario '{scenario.name}' to depth {job.depth}" if failure else ""
    return Done(job=job, tally=exploration.tally, failure=failure, found_by=found_by)
