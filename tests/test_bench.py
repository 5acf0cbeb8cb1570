"""The bench's verdicts: which figures keep their promise, and which suites there are."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts.benchmarks import __main__ as bench

HIGHER = {"figure": "a", "at_least": 1.2, "aim": 2.0, "detail": ""}
LOWER = {"figure": "b", "at_most": 60.0, "aim": 30.0, "detail": ""}


@pytest.mark.parametrize(
    ("figure", "value", "keeps", "reaches"),
    [
        (HIGHER, 1.1, False, False),
        (HIGHER, 1.2, True, False),
        (HIGHER, 2.0, True, True),
        (LOWER, 60.1, False, False),
        (LOWER, 60.0, True, False),
        (LOWER, 30.0, True, True),
    ],
)
def test_a_figure_is_held_to_its_own_side(
    figure: dict[str, object], value: float, *, keeps: bool, reaches: bool
) -> None:
    """More is better for ``at_least``, less for ``at_most``; the bound itself counts as kept."""
    measured = {**figure, "value": value}
    assert bench.keeps(measured) is keeps
    assert bench.reaches(measured) is reaches


def test_writes_the_figures_and_fails_when_one_falls_short(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The status tells of any figure below its promise, and the JSON holds them all."""
    suite = SimpleNamespace(run=lambda: [{**HIGHER, "value": 1.5}, {**LOWER, "value": 61.0}])
    monkeypatch.setattr(bench, "suites", lambda: ["made_up"])
    monkeypatch.setattr(bench, "_suite", lambda name: suite)
    file = tmp_path / "figures.json"
    assert bench.main(["--json", str(file)]) == 1
    assert [(figure["figure"], figure["value"]) for figure in json.loads(file.read_text())] == [
        ("a", 1.5),
        ("b", 61.0),
    ]
    assert "SHORT" in capsys.readouterr().out


def test_refuses_a_suite_that_does_not_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names those that do."""
    monkeypatch.setattr(bench, "suites", lambda: ["made_up"])
    assert bench.main(["unheard_of"]) == 2
    assert "there are made_up" in capsys.readouterr().err
