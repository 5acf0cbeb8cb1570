"""The bench's verdicts: which figures keep their promise, and which suites there are."""

import json
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import cast

import pytest

from cluster.snapshots import Snapshot
from cluster.tokens import TokenCodec
from scripts.benchmarks import __main__ as bench
from scripts.benchmarks import breakable, forwarding, outage, recovery, stampede, turnstile
from scripts.benchmarks.several import Several
from scripts.benchmarks.traffic import Period, Read, Traffic, caused

HIGHER = {"figure": "a", "at_least": 1.2, "aim": 2.0, "detail": ""}
CODEC = TokenCodec([b"a secret for tests only"])
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


def test_a_suite_is_given_the_options_that_it_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--seconds`` reaches who takes seconds, and nobody else stumbles over it."""
    given: list[float] = []

    async def timed(seconds: float | None = None) -> list[dict[str, object]]:
        given.append(seconds or 0.0)
        return [{**HIGHER, "value": 1.5}]

    kinds = {"timed": SimpleNamespace(run=timed), "plain": SimpleNamespace(run=list)}
    monkeypatch.setattr(bench, "suites", lambda: list(kinds))
    monkeypatch.setattr(bench, "_suite", kinds.__getitem__)
    assert bench.main(["--seconds", "3"]) == 0
    assert given == [3.0]


def test_the_suites_of_outages_are_there() -> None:
    """What they stand on is no suite."""
    assert all(hasattr(suite, "run") for suite in (outage, recovery))
    assert not any(hasattr(part, "run") for part in (breakable, turnstile))


def test_refusals_count_from_the_opening_or_the_request() -> None:
    """Who asked before the breaker opened waits from its opening on, who asked later from the request on."""
    early, late = outage.Asked(9.0, 10.002, refused=True), outage.Asked(20.0, 20.004, refused=True)
    answered = outage.Asked(9.5, 10.001, refused=False)
    figure = outage._refusal_figure([early, answered, late], opened_s=10.0)
    assert figure["value"] == 4.0
    assert "p99 of 2 refusals" in figure["detail"]


def test_knocks_count_once_the_breaker_is_open() -> None:
    """Those that opened it are told apart."""
    figure = outage._knocks_figure([1.0, 1.1, 2.0, 2.5, 3.25, 9.0], down_s=1.0, opened_s=2.0, up_s=5.0)
    assert figure["value"] == 1.0
    assert "3 connection attempts in 3.0 s, at most 2 within a second; 2 before" in figure["detail"]


def test_p99_is_the_median_of_its_slices() -> None:
    """One bad second is no bad outage."""
    hits = [(float(second), 0.5 if second == 3 else 0.001) for second in range(9)]
    assert outage._p99_ms(hits, 0.0, 9.0) == pytest.approx(1.0)


def traffic(written: dict[int, list[int]]) -> Traffic:
    """Of ten items, after its end; ``written`` are the transactions that counted each item up."""
    ended = Traffic(cast("Several", SimpleNamespace(rows=10, members={}, codec=CODEC)), Random(0))
    ended._written.update(written)
    ended._ending = True
    return ended


@pytest.mark.parametrize(("n", "wrong"), [(0, True), (1, False), (2, True)])
def test_a_reply_is_judged_at_the_snapshot_that_it_names(n: int, *, wrong: bool) -> None:
    """Of two writes it sees the one that had ended: neither an older value is right, nor a newer one."""
    at = CODEC.encode(Snapshot(100, 106, (105,)), 7).encode()
    period = Period(reads=[Read(3, n, at)])
    assert traffic({3: [104, 105]}).wrong(period) == (period.reads if wrong else [])


def test_a_reply_that_names_no_snapshot_is_wrong() -> None:
    """What cannot be judged is not taken for right."""
    period = Period(reads=[Read(3, 0, b"nothing")])
    assert traffic({}).wrong(period) == period.reads


def test_loads_that_writes_cause_are_subtracted() -> None:
    """In proportion to the writes, as the control period tells."""
    assert caused(Period(loads=130, writes=100), Period(loads=50, writes=50)) == 30


@pytest.mark.parametrize(
    "astray",
    [{"hits": 1}, {"owner_answers": 9}, {"copies_fetched": 1}, {"copies_kept": 1}, {"loads": 1}],
)
def test_only_reads_that_were_all_forwarded_count_as_forwarded(astray: dict[str, int]) -> None:
    """One that memory here, a copy, or the database has answered spoils the round."""
    asked = {
        "forwarded": 10,
        "owner_answers": 10,
        "hits": 0,
        "copies_fetched": 0,
        "copies_kept": 0,
        "loads": 0,
    }
    owner = {"hits": 10, "loads": 0, "forwarded": 0}
    assert forwarding._all_forwarded(asked, owner, 10)
    assert not forwarding._all_forwarded({**asked, **astray}, owner, 10)
    assert not forwarding._all_forwarded(asked, {**owner, "hits": 9}, 10)


async def test_nodes_load_a_cold_key_once() -> None:
    """A small run of `stampede`, and so of what all suites of several nodes stand on."""
    (figure,) = await stampede.run(rounds=1, nodes=2)
    assert figure["value"] == 1
