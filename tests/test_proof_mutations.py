"""The proof has teeth: with any one guard taken out of the node or of the database, it finds what is wrong."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.embedded import EmbeddedPostgres
from scripts.proof import stages
from scripts.proof.evidence import Evidence
from scripts.proof.judge import KINDS, judge
from scripts.proof.mutations import MUTATIONS, table
from scripts.proof.proving import Assignment, prove
from scripts.proof.scenes import Scene
from scripts.proof.truths import BY_NAME

PROVE = (sys.executable, "-P", "-m", "scripts.proof")
LIMIT_S = 30
SCENES = {name: scene for name, scene in vars(stages).items() if isinstance(scene, Scene)}


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """The directory of a server at rest, which every run begins with a copy of."""
    pristine = EmbeddedPostgres()
    pristine.initialise()
    yield pristine.directory
    pristine.close()


@pytest.mark.parametrize("name", MUTATIONS)
def test_without_a_guard_the_proof_finds_what_is_wrong(name: str, template: Path, tmp_path: Path) -> None:
    """Every guard is needed, and the proof would notice its loss; the evidence shows it again."""
    summary, kept = tmp_path / "summary.json", tmp_path / "evidence.jsonl"
    command = (
        *PROVE,
        "--mutate",
        name,
        "--seconds",
        str(LIMIT_S),
        "--seed",
        "7",
        "--template",
        str(template),
    )
    run = subprocess.run(
        (*command, "--json", str(summary), "--keep", str(kept)),
        check=False,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    found = json.loads(summary.read_text())
    assert found["mutation"] == name
    assert sum(found[kind] for kind in KINDS)
    evidence = Evidence.read(kept)
    assert not judge(evidence.caches(BY_NAME), evidence.history, evidence.replies, evidence.codec).clean


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
async def test_with_all_guards_the_same_scenes_are_clean(scene: Scene, template: Path) -> None:
    """What is found without a guard is its absence, not the scene."""
    assignment = Assignment(scene=scene, seconds=1.5, round_s=1.5, seed=7, template=template)
    outcome = await prove(assignment)
    assert outcome.evidence is None, outcome.summary["examples"]
    assert outcome.summary["replies"]


def test_every_mutation_can_be_listed() -> None:
    """By name, one a line."""
    listed = subprocess.run((*PROVE, "--mutate", "list"), capture_output=True, text=True, check=True).stdout
    assert listed.split() == list(MUTATIONS)


def test_every_guard_is_in_the_table() -> None:
    """With what it protects, and the mutation that takes it away."""
    lines = table().splitlines()[2:]
    assert [line.split("`")[-2] for line in lines] == list(MUTATIONS)
    assert all(line.count("|") == 4 for line in lines)
