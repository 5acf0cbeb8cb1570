"""The proof has teeth: with any one guard taken out of the node or of the database, it finds what is wrong."""

from pathlib import Path
from typing import Final

import pytest

from scripts.proof import stages
from scripts.proof.__main__ import main
from scripts.proof.evidence import Evidence
from scripts.proof.judge import KINDS, judge
from scripts.proof.mutations import MUTATIONS, Mutation, table
from scripts.proof.proving import Assignment, prove
from scripts.proof.scenes import Scene
from scripts.proof.truths import BY_NAME

LIMIT_S: Final = 300.0
ROUND_S: Final = 1.0
LONGER_S: Final = {"history-floor": 2.5, "kept-check": 2.0}
"""Rounds of what takes its time to show, such as a history that is kept for a second."""

SCENES = {name: scene for name, scene in vars(stages).items() if isinstance(scene, Scene)}


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
async def test_without_a_guard_the_proof_finds_what_is_wrong(
    mutation: Mutation, template: Path, tmp_path: Path
) -> None:
    """Every guard is needed, and the proof would notice its loss; the evidence shows it again."""
    assignment = Assignment(
        scene=mutation.scene,
        seconds=LIMIT_S,
        round_s=LONGER_S.get(mutation.name, ROUND_S),
        seed=7,
        faults=mutation.faults,
        mutation=mutation,
        template=template,
    )
    outcome = await prove(assignment)
    assert outcome.evidence is not None, outcome.summary
    assert outcome.summary["mutation"] == mutation.name
    assert sum(outcome.summary[kind] for kind in KINDS)
    outcome.evidence.write(tmp_path / "evidence.jsonl")
    evidence = Evidence.read(tmp_path / "evidence.jsonl")
    assert not judge(evidence.caches(BY_NAME), evidence.history, evidence.replies, evidence.codec).clean


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
async def test_with_all_guards_the_same_scenes_are_clean(scene: Scene, template: Path) -> None:
    """What is found without a guard is its absence, not the scene."""
    assignment = Assignment(scene=scene, seconds=1.5, round_s=1.5, seed=7, template=template)
    outcome = await prove(assignment)
    assert outcome.evidence is None, outcome.summary["examples"]
    assert outcome.summary["replies"]


def test_every_mutation_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """By name, one a line."""
    assert main(["--mutate", "list"]) == 0
    assert capsys.readouterr().out.split() == list(MUTATIONS)


def test_every_guard_is_in_the_table() -> None:
    """With what it protects, and the mutation that takes it away."""
    lines = table().splitlines()[2:]
    assert [line.split("`")[-2] for line in lines] == list(MUTATIONS)
    assert all(line.count("|") == 4 for line in lines)
