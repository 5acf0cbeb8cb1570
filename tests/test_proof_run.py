"""The proof from the outside: what it says, writes and returns."""

import json
from pathlib import Path

import pytest

from scripts.proof.__main__ import main
from scripts.proof.evidence import Evidence

FIGURES = (
    "replies",
    "wrong",
    "token_violations",
    "went_back",
    "too_old",
    "staleness_p50_ms",
    "staleness_p99_ms",
)


def test_a_proof_judges_every_kind_of_reply(
    template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Writers, the store's writers and readers of every habit at work; nothing is wrong."""
    file = tmp_path / "summary.json"
    status = main(["--seconds", "3", "--seed", "5", "--json", str(file), "--template", str(template)])
    found = json.loads(file.read_text())
    assert (status, found["wrong"], found["seed"], found["faults"]) == (0, 0, 5, [])
    assert all(name in found for name in FIGURES)
    assert min(found["asked"].values()) > 0
    assert min(found["caches"].values()) > 0
    assert "0 wrong" in capsys.readouterr().out


def test_a_proof_goes_through_faults(template: Path, tmp_path: Path) -> None:
    """A crash begins a new incarnation, of which replies are judged too; the fault is told of."""
    file = tmp_path / "summary.json"
    call = ["--seconds", "8", "--faults", "postgres-killed", "--json", str(file), "--template", str(template)]
    assert main(call) == 0
    found = json.loads(file.read_text())
    assert found["incarnations"] > 1
    assert {fault["name"] for fault in found["faults"]} == {"postgres-killed"}


def test_a_proof_that_fails_keeps_what_shows_it(
    template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names its seed, and the evidence can be judged again."""
    kept = tmp_path / "evidence.jsonl"
    call = [
        "--mutate",
        "apply",
        "--seconds",
        "30",
        "--seed",
        "9",
        "--keep",
        str(kept),
        "--template",
        str(template),
    ]
    assert main(call) == 1
    assert f"seed 9; evidence: {kept}" in capsys.readouterr().out
    assert len(Evidence.read(kept).replies)
    assert main(["--judge", str(kept)]) == 1
    assert "the database held" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--faults", "flood"], ["--mutate", "everything"], ["--seconds", "0"]])
def test_what_is_not_there_cannot_be_proved(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A call that makes no sense is refused."""
    with pytest.raises(SystemExit) as refused:
        main(words)
    assert refused.value.code == 2
    assert words[0] in capsys.readouterr().err
