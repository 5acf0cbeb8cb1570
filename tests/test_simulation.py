"""The simulation keeps the core's promises under every order of events, and notices every guard's absence."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.snapshots import Snapshot
from scripts.simulation.__main__ import main
from scripts.simulation.explore import Exploration, Scenario
from scripts.simulation.jobs import LENGTH, Job, do
from scripts.simulation.loop import Loop
from scripts.simulation.messages import Limits
from scripts.simulation.model import Database, value_of
from scripts.simulation.mutations import MUTATIONS, mutated
from scripts.simulation.report import in_words, read_failure
from scripts.simulation.scenarios import SCENARIOS
from scripts.simulation.schedule import Failure, Play, replay, wander
from scripts.simulation.shrink import shrink

ROOT = Path(__file__).parents[1]
SHALLOWER = 4
SHORT = 12


def found(seeds: range = range(400)) -> Failure:
    """The first failure that schedules drawn from these seeds come upon."""
    for seed in seeds:
        _, failure = wander(seed, LENGTH)
        if failure is not None:
            return failure
    raise AssertionError("no schedule breaks a promise")


def simulate(*arguments: str, hash_seed: str = "random") -> subprocess.CompletedProcess[str]:
    """The program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "scripts.simulation", "--workers", "2", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_schedules_drawn_at_random_break_no_promise() -> None:
    """Everything at once, in any order: no reply is wrong, none claims an age too young, nobody waits in vain."""
    steps = 0
    for seed in range(100):
        taken, failure = wander(seed, LENGTH)
        assert failure is None, (seed, failure)
        steps += taken
    assert steps > 100 * LENGTH


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_no_order_of_a_small_scenario_breaks_a_promise(scenario: Scenario) -> None:
    """All of them, not as deep as the program goes."""
    exploration = Exploration(replace(scenario, depth=scenario.depth - SHALLOWER))
    assert exploration.run() is None
    assert exploration.tally.whole
    assert exploration.tally.interleavings >= exploration.tally.schedules > 100


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_guard_is_missed(name: str) -> None:
    """With it off a schedule fails, also once shrunk to a few steps; with it on, that schedule does not."""
    with mutated(name):
        short = shrink(found())
        again = replay(short.limits, short.steps)
    assert again == short
    assert len(short.steps) <= SHORT
    assert replay(short.limits, short.steps) is None


@pytest.mark.parametrize("name", ["admit-whatever-lands", "apply-nothing", "move-the-watermark-first"])
def test_exploring_finds_what_is_wrong_too(name: str) -> None:
    """The failing path is a schedule that fails when played."""
    with mutated(name):
        failure = Exploration(replace(SCENARIOS[0], depth=7)).run()
        assert failure is not None
        assert replay(failure.limits, failure.steps) == failure


def test_what_is_shared_is_counted_and_not_done_twice() -> None:
    """Interleavings are exactly the lists of steps that make sense, whether or not they share their ends."""
    writes = tuple((verb, name) for name in ("T1", "T2") for verb in ("commit", "roll back"))
    alphabet = (("write", "T1", "a"), ("write", "T2", "b"), *writes, ("poll", 0), ("apply", 0))
    scenario = Scenario(name="counted", alphabet=alphabet, depth=4)
    exploration = Exploration(scenario)
    assert exploration.run() is None

    def count(*steps: tuple[str | int, ...]) -> int:
        if len(steps) == scenario.depth:
            return 1
        return sum(count(*steps, step) for step in alphabet if plays(*steps, step))

    def plays(*steps: tuple[str | int, ...]) -> bool:
        play = Play(Limits())
        return all(map(play.step, steps))

    assert exploration.tally.interleavings == count()
    assert exploration.tally.schedules < exploration.tally.interleavings


def test_the_model_sees_what_postgres_sees() -> None:
    """Commits out of order: xmax is above the last that ended, and who still runs below it is in xip."""
    db = Database().write("T1", "a").write("T2", "b").write("T3", "a")
    second = db.transaction("T2")
    assert second is not None
    assert db.snapshot() == Snapshot(10, 10)
    db = db.commit(second, 1.0)
    assert db.snapshot() == Snapshot(10, 12, (10,))
    assert value_of("all", db.commits[-1].contents) == "0.10011.0"
    assert [row.xid for row in db.unseen_by(Snapshot(10, 11, (10,)))] == [11]


def test_the_model_loses_commits_and_uses_their_xids_again() -> None:
    """After a crash the lost commit never was; a prepared transaction survives, one that ran does not."""
    db = Database().write("T1", "a").write("T2", "b").write("T3", "b")
    first, second = db.transaction("T1"), db.transaction("T2")
    assert first is not None
    assert second is not None
    before, token = db.prepare(first).commit(second, 1.0).take()
    after = before.crash(1, 2.0)
    assert [one.xid for one in after.running] == [first.xid]
    assert after.next_xid == second.xid
    assert value_of("b", after.commits[-1].contents) == "0.0"
    assert after.current_until_s(after.truths[after.tokens.index(token)]) == 2.0


def test_the_schedule_decides_who_runs_next() -> None:
    """Callbacks in any order, timers not before their time."""
    now_s, ran = 0.0, list[str]()
    loop = Loop(lambda: now_s)
    loop.call_later(2.0, ran.append, "late")
    loop.call_soon(ran.append, "first")
    loop.call_soon(ran.append, "second")
    loop.turn(1)
    loop.turn(0)
    loop.ring()
    assert (ran, loop.ready) == (["second", "first"], [])
    now_s = 2.0
    loop.ring()
    loop.turn(0)
    assert ran[-1] == "late"


def test_the_same_seed_does_the_same() -> None:
    """Whatever the hashes of this process: failures, counts and steps are the same to the last figure."""
    results = []
    for hash_seed in ("1", "2"):
        run = simulate("--schedules", "5000", "--seed", "3", "--json", "/dev/stdout", hash_seed=hash_seed)
        assert run.returncode == 0, run.stderr
        figures = json.loads(run.stdout[run.stdout.index("{\n") :])
        results.append({name: figures[name] for name in figures if not name.endswith(("seconds", "minute"))})
    assert results[0] == results[1]
    assert results[0]["schedules"] >= 5_000


def test_a_failure_is_reported_and_can_be_replayed(tmp_path: Path) -> None:
    """Exit status 1, the steps in words and in JSON; the replay fails in the same way, and unmutated it does not."""
    path = tmp_path / "failure.json"
    run = simulate("--mutate", "apply-nothing", "--seconds", "60", "--json", str(path))
    assert run.returncode == 1, run.stderr
    failure = json.loads(path.read_text())["failure"]
    assert "seed" in failure["found_by"]
    assert all(line in run.stdout for line in (*failure["in_words"], failure["what"]))
    limits, steps, mutation = read_failure(path)
    assert (mutation, list(map(in_words, steps))) == ("apply-nothing", failure["in_words"])
    assert replay(limits, steps) is None
    assert simulate("--replay", str(path)).returncode == 1


def test_the_same_job_fails_at_the_same_step() -> None:
    """A failure is a function of the seed, shrunk or not."""
    job = Job(mutation="claim-the-watermark-unkept", seeds=range(400))
    first, second = do(job), do(job)
    assert first.failure is not None
    assert (first.failure, first.found_by) == (second.failure, second.found_by)


def test_what_cannot_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2 and one line, for a mutation or a file that is none."""
    assert main(["--mutate", "no-such-guard"]) == 2
    (tmp_path / "x").write_text('{"failure": null}')
    assert main(["--replay", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.count("simulate: ") == 2


def test_the_mutations_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with the guard that it switches off."""
    assert main(["--mutate", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed and mutation.guard in listed for name, mutation in MUTATIONS.items())
