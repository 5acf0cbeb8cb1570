"""The simulation of rings tells what the ring does and what polling comes to."""

import json
from pathlib import Path

import pytest

from scripts.ring_simulation.__main__ import main
from scripts.ring_simulation.feeds import Costs, load, most_nodes, period_ms
from scripts.ring_simulation.rings import KEYS, cast, keys_in_slots, measure


def test_the_figures_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of rings up to 20 nodes and of 100, within what is aimed at."""
    path = tmp_path / "figures.json"
    assert main(["--nodes", "3,20,100", "--leavers", "2", "--json", str(path)]) == 0
    figures = json.loads(path.read_text())
    assert figures["ring_balance"] <= 1.02
    assert figures["ring_balance_100"] <= 1.10
    assert figures["ring_moved"] <= 1.01
    assert [ring["nodes"] for ring in figures["rings"]] == [3, 20, 100]
    assert f"{figures['most_polling_nodes']['0']} nodes can poll" in capsys.readouterr().out


def test_keys_move_as_slots_do() -> None:
    """Every key is counted, and about as many move as slots."""
    measured = measure(cast("arbitrary", 1), 4, 4)
    assert sum(keys_in_slots().values()) == KEYS
    assert measured.keys_moved_on_join == pytest.approx(measured.moved_on_join / 5, rel=0.05)
    assert measured.moved_on_leave_worst >= measured.moved_on_leave
    assert measured.keys_moved_ideally == 1 / 5


def test_zones_cost_next_owners() -> None:
    """In two zones of two, one of three who could be next is in the leaver's own."""
    assert measure(cast("numbered", 2), 4, 4).next_owner == pytest.approx(2 / 3, rel=0.05)
    assert measure(cast("numbered", 1), 4, 4).next_owner == 1.0


def test_as_many_nodes_poll_as_the_budget_lets() -> None:
    """One more is too many at this period, and not at the one that is said to do."""
    costs = Costs(period_ms=20, poll_ms=0.4, row_us=1, cores=8, budget=0.25)
    most = most_nodes(10_000, costs)
    assert load(most, 10_000, costs).database <= 2 < load(most + 1, 10_000, costs).database
    assert period_ms(most, 10_000, costs) == 20
    slower = period_ms(most + 1, 10_000, costs)
    assert slower is not None
    eased = Costs(period_ms=slower, poll_ms=0.4, row_us=1, cores=8, budget=0.25)
    assert load(most + 1, 10_000, eased).database == pytest.approx(2)
    assert period_ms(1000, 10_000, costs) is None


@pytest.mark.parametrize("arguments", [["--nodes", "2"], ["--zones", "0"], ["--budget", "inf"]])
def test_what_makes_no_sense_is_refused(arguments: list[str]) -> None:
    """Exit status 2, before anything is built."""
    with pytest.raises(SystemExit, match="2"):
        main(arguments)


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2 and one line."""
    assert main(["--nodes", "3", "--json", str(tmp_path)]) == 2
    assert "simulate-ring: " in capsys.readouterr().err
