"""What a call of the proof asks for: how many nodes, and which faults befall them."""

import pytest

from scripts.demonstration.programs import ProgramFailed
from scripts.proof.__main__ import _assignment, _parser
from scripts.proof.faults import FAULTS, Befalls, FaultFailed
from scripts.proof.ports import free_port
from scripts.proof.proving import Assignment, prove
from scripts.proof.scenes import EVERYTHING


def asked(*words: str) -> Assignment:
    """The assignment of a command line."""
    return _assignment(_parser().parse_args(words))


def test_three_nodes_and_no_faults_unless_told() -> None:
    """A mutation takes as many nodes as it needs to be noticed."""
    assert (asked().nodes, asked().faults) == (3, [])
    assert (asked("--mutate", "apply").nodes, asked("--mutate", "copy-check").nodes) == (1, 3)


@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize(
    ("word", "kinds"), [("all", tuple(Befalls)), ("server", (Befalls.SERVER,)), ("nodes", (Befalls.NODES,))]
)
def test_a_set_of_faults_is_those_for_which_there_are_nodes(
    word: str, kinds: tuple[Befalls, ...], nodes: int
) -> None:
    """Every one of them."""
    found = asked("--faults", word, "--nodes", str(nodes)).faults
    several = {
        name for name, fault in FAULTS.items() if fault.befalls in kinds and fault.needs.nodes <= nodes
    }
    assert set(found) == several
    assert ("views-split" in found) == (nodes > 1 and Befalls.NODES in kinds)


async def test_a_fault_that_takes_more_nodes_is_refused() -> None:
    """Before anything is started; the message says what to do."""
    assignment = Assignment(
        scene=EVERYTHING, seconds=1.0, round_s=1.0, seed=1, faults=["nodes-scaled"], nodes=1
    )
    with pytest.raises(FaultFailed, match="say --nodes 3"):
        await prove(assignment)


def test_an_address_that_is_not_there_is_told_of() -> None:
    """Some systems have no loopback address but one."""
    assert free_port("127.0.0.1") in range(20_000, 32_000)
    with pytest.raises(ProgramFailed, match="say --nodes 1"):
        free_port("127.0.0.1", "203.0.113.1")
