"""The fuzzers from the outside: every target is read for a moment, and finds each defect that is planted in it."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.doors.resp.parsing import CommandParser
from doors import command
from scripts.fuzzing.__main__ import main
from scripts.fuzzing.breaks import BREAKS
from scripts.fuzzing.choices import Choices
from scripts.fuzzing.docket import DOCKET
from scripts.fuzzing.findings import smaller
from scripts.fuzzing.growth import growth
from scripts.fuzzing.resp_model import Said, read

EXECUTIONS = {"resp": 150, "keys": 5000, "tokens": 3000, "grpc": 150, "peers": 8000, "config": 100}

FINDING = 20
"""So many times as long a defect may hide."""


bred = pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not built for this platform")


@bred
@pytest.mark.parametrize("target", DOCKET)
def test_nothing_breaks(target: str, database: str, tmp_path: Path) -> None:
    """Each target reads its seeds, the cases that once broke something, and what is bred of them."""
    file = tmp_path / "figures.json"
    call = [target, "--executions", str(EXECUTIONS[target]), "--seed", "3", "--json", str(file)]
    status = main([*call, "--keep", str(tmp_path / "kept"), "--database", database])
    (figures,) = json.loads(file.read_text())
    assert (status, figures["crashes"], figures["found"]) == (0, 0, [])
    assert figures["executions"] >= EXECUTIONS[target]
    assert figures["edges"] > 10


@bred
@pytest.mark.parametrize("name", BREAKS)
def test_a_planted_defect_is_found(
    name: str, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Within a moment; the input that shows it is kept, and is harmless without the defect."""
    target = BREAKS[name].target
    kept = tmp_path / "kept"
    call = [
        "--break",
        name,
        "--executions",
        str(FINDING * EXECUTIONS[target]),
        "--keep",
        str(kept),
        "--database",
        database,
    ]
    assert main(call) == 1
    found = sorted(kept.glob("*.input"))
    assert found
    assert f"scripts/fuzz {target} --replay {found[0]}" in capsys.readouterr().out
    if not DOCKET[target].database:
        assert main([target, "--replay", str(found[0])]) == 0


@bred
def test_a_node_in_a_process_of_its_own_outlives_it(database: str, tmp_path: Path) -> None:
    """It answers, logs no error, and ends when it is told to."""
    call = ["resp", "--apart", "--executions", "300", "--keep", str(tmp_path), "--database", database]
    assert main(call) == 0


def test_memory_that_grows_is_told_from_memory_that_warms_up() -> None:
    """By the second half alone, and not at all in a run that is too short to have one."""
    warming = [(float(second), 100.0 + min(second, 100)) for second in range(600)]
    leaking = [(float(second), 100.0 + second / 10) for second in range(600)]
    assert growth(warming).bounded
    assert growth(warming).rise < 1.0
    assert not growth(leaking).bounded
    assert growth(leaking).per_minute == pytest.approx(6.0)
    assert growth(leaking[:30]).bounded


def test_an_input_is_made_smaller_as_long_as_it_breaks() -> None:
    """What is left out is not what it breaks by."""
    assert smaller(b"x" * 50 + b"bad" + b"y" * 50, lambda data: b"bad" in data, 10.0) == b"bad"


@given(st.binary(max_size=12), st.integers(0, 2**70))
def test_any_bytes_choose_something(data: bytes, most: int) -> None:
    """And past their end the least."""
    choices = Choices(data)
    assert 0 <= choices.number(most) <= most
    assert choices.pick("abc") in "abc"
    choices.rest()
    assert (choices.number(most), choices.rest()) == (0, b"")


WORDS = st.lists(st.binary(max_size=8), min_size=1, max_size=3)
PIECES = WORDS.map(lambda words: command(*words)) | st.sampled_from(
    [
        b"PING\r\n",
        b"*2\r\n$1\r\n",
        b"'a b' c\n",
        b'"\\x41\\n\\q"\n',
        b'a"b\n',
        b"'\\'\\x'\n",
        b"*0\r\n",
        b"$1\r\n",
        b"\n",
        b"*9\r\n",
        b"x" * 70,
    ]
)


@given(st.lists(PIECES | st.binary(max_size=6), max_size=6).map(b"".join))
def test_the_model_reads_what_the_door_reads(stream: bytes) -> None:
    """Two readers that share no code, of the same bytes."""
    parser = CommandParser(max_bytes=64, max_words=4)
    commands = parser.feed(stream)
    assert read(stream, max_bytes=64, max_words=4) == Said(commands, wrong=parser.error is not None)


@pytest.mark.parametrize(
    "call",
    [["nonsense"], ["--break", "nonsense"], ["--replay", "nowhere"], ["keys", "resp", "--replay", "x"]],
)
def test_a_wrong_call_is_told_so(call: list[str]) -> None:
    """Before anything is started."""
    assert main(call) == 2


def test_it_lists_the_defects_that_can_be_planted(capsys: pytest.CaptureFixture[str]) -> None:
    """There is one for each target at least."""
    assert main(["--break", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in BREAKS)
    assert {each.target for each in BREAKS.values()} == set(DOCKET)
