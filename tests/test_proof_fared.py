"""How clients fared is told of the nodes that were well: what was broken excuses nothing else."""

from pathlib import Path
from random import Random

import pytest

from scripts.proof.fared import Trouble, fared
from scripts.proof.faults.membership import parts
from scripts.proof.replies import Failure, Replies


def replies(*failures: Failure) -> Replies:
    """A record of failures alone, each as long as it took."""
    record = Replies()
    for failure in failures:
        record.failed(*failure)
        record.waited(failure.port, failure.sent_s, failure.received_s)
    return record


def test_a_failure_where_nothing_was_broken_is_told() -> None:
    """By its code, with the longest time that anything took."""
    record = replies(Failure(1, "UNAVAILABLE", 10.0, 10.5), Failure(2, "UNAVAILABLE", 10.0, 12.0))
    found = fared(record, [], since_s=0.0, until_s=99.0)
    assert (found.failed, found.longest_s) == ({"UNAVAILABLE": 2}, 2.0)


@pytest.mark.parametrize(("port", "left"), [(1, {"UNAVAILABLE": 1}), (None, {}), (3, {"UNAVAILABLE": 2})])
def test_a_node_in_trouble_is_excused_and_no_other(port: int | None, left: dict[str, int]) -> None:
    """Unless it is PostgreSQL that all of them need."""
    record = replies(Failure(1, "UNAVAILABLE", 10.0, 10.5), Failure(2, "UNAVAILABLE", 10.0, 12.0))
    trouble = Trouble(port=port, began_s=9.0, ended_s=11.0)
    assert fared(record, [trouble], since_s=0.0, until_s=99.0).failed == left


def test_nothing_but_its_own_trouble_excuses_a_node_that_takes_long() -> None:
    """A request has its deadline, whatever befalls PostgreSQL."""
    record = replies(Failure(1, "UNAVAILABLE", 10.0, 12.0), Failure(2, "UNAVAILABLE", 10.0, 14.0))
    troubles = [Trouble(port=port, began_s=9.0, ended_s=11.0) for port in (None, 2)]
    assert fared(record, troubles, since_s=0.0, until_s=99.0).longest_s == 2.0


def test_trouble_excuses_nothing_before_and_long_after_it() -> None:
    """What came too late still counts as its consequence."""
    record = replies(
        Failure(1, "before", 1.0, 1.9), Failure(1, "meanwhile", 1.0, 2.1), Failure(1, "after", 9.0, 9.1)
    )
    found = fared(record, [Trouble(port=1, began_s=2.0, ended_s=3.0)], since_s=0.0, until_s=99.0)
    assert found.failed == {"before": 1, "after": 1}


def test_answers_about_the_question_are_no_failures() -> None:
    """A token of before a crash is refused by whoever is well."""
    record = replies(Failure(1, "TOKEN_FOREIGN", 10.0, 10.5))
    assert fared(record, [], since_s=0.0, until_s=99.0).failed == {}


def test_a_record_is_passed_on_whole(tmp_path: Path) -> None:
    """One process hands it to another."""
    record = replies(Failure(1, "UNAVAILABLE", 10.0, 10.5))
    record.dump(tmp_path / "record")
    loaded = Replies.load(tmp_path / "record")
    assert (loaded.failures, loaded.waits) == (record.failures, record.waits)


@pytest.mark.parametrize("count", range(2, 8))
@pytest.mark.parametrize("seed", range(8))
def test_split_views_differ_and_hold_their_viewer(count: int, seed: int) -> None:
    """Or nothing would be split."""
    names = [f"node-{number}" for number in range(count)]
    seen = parts(names, Random(seed))
    assert all(name in part for name, part in zip(names, seen, strict=True))
    assert len({*map(tuple, seen)}) > 1
