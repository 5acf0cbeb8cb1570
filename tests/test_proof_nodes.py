"""What the proof does to several nodes as members of a cluster happens, is mended, and leaves every read an answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random

import pytest
import pytest_asyncio

from scripts.proof.cluster import Survey, agreed, rings, surveyed
from scripts.proof.fared import ABOUT_THE_QUESTION
from scripts.proof.faults import FaultFailed, hop, membership, standstill
from scripts.proof.ground import Ground, standing
from scripts.proof.readers import Errand
from scripts.proof.reading import reading
from scripts.proof.replies import Replies
from test_proof_faults import SETTINGS, _prepare

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground() -> AsyncIterator[Ground]:
    """Three nodes, which all faults here befall one after another."""
    async with standing(prepare=_prepare, node_settings=SETTINGS, nodes=3) as ground:
        await agreed(ground.nodes)
        yield ground


async def read_during(ground: Ground, fault: Awaitable[str]) -> tuple[str, Replies]:
    """What a fault says of itself, and what readers of all nodes in service were answered meanwhile."""
    errand = Errand(
        ports=[node.port for node in ground.nodes],
        secret=ground.secret.decode(),
        keys=[f"item:{number}" for number in range(20)],
        readers={"plain": (3, 1), "session": (3, 1)},
        seed="1",
        file=str(ground.directory / "replies"),
    )
    async with reading(errand) as readers:
        ground.watchers[:] = [lambda: readers.send_to([node.port for node in ground.nodes])]
        said = await fault
        await agreed(ground.nodes)
        return said, await readers.record()


def failed(record: Replies) -> set[str]:
    """The codes of the reads that brought no answer, though nothing was wrong with the question."""
    return record.errors.keys() - ABOUT_THE_QUESTION


async def noted(during: Awaitable[str], look: Callable[[], int]) -> list[int]:
    """What ``look()`` was, one after the other, while a fault was carried out."""
    task, seen = asyncio.ensure_future(during), [look()]
    while not task.done():
        await asyncio.sleep(0.01)
        if look() != seen[-1]:
            seen.append(look())
    await task
    return seen


async def test_nodes_come_and_go_unnoticed(ground: Ground) -> None:
    """Three, five, two, three: who drains answers what it was asked, and clients ask those in service."""
    fault = membership.scaled(ground, Random(1), longest_s=0.1)
    counts = await noted(read_counted(ground, fault), lambda: len(ground.nodes))
    assert counts[0] == counts[-1] == 3
    assert (max(counts), min(counts)) == (5, 2)


async def read_counted(ground: Ground, fault: Awaitable[str]) -> str:
    """The same, once no read has failed."""
    said, record = await read_during(ground, fault)
    assert len(record)
    assert failed(record) == set()
    return said


async def test_a_rolling_restart_is_unnoticed(ground: Ground) -> None:
    """Every node has another life afterwards."""
    before = {node.name: node.pid for node in ground.nodes}
    said, record = await read_during(ground, membership.restarted(ground, Random(1)))
    assert said.startswith("drained and started again")
    assert failed(record) == set()
    assert [node.name for node in ground.nodes] == list(before)
    assert all(node.pid != before[node.name] for node in ground.nodes)


async def test_split_views_are_several_rings_and_one_hop(ground: Ground) -> None:
    """Every read is answered all the same, and nobody passes on what a peer asked."""
    survey = Survey(ground.places)
    fault = asyncio.ensure_future(read_during(ground, membership.split(ground, Random(1), seconds=0.3)))
    while len(rings(await surveyed(ground.nodes))) < 3:
        assert not fault.done()
    await survey.look()
    assert failed((await fault)[1]) == set()
    assert len(rings(await surveyed(ground.nodes))) == 1


@pytest.mark.parametrize("seed", [1, 4])
async def test_a_way_that_is_broken_in_one_direction_costs_no_answer(ground: Ground, seed: int) -> None:
    """Whoever cannot reach the owner finds another way, as soon as it has noticed."""
    fault = asyncio.ensure_future(read_during(ground, hop.one_way(ground, Random(seed), longest_s=2.0)))
    while not any("no sign of life" in text for text in await peers_told(ground)):
        assert not fault.done()
    said, record = await fault
    assert said.endswith(("lost", "held back"))
    assert failed(record) == set()


async def peers_told(ground: Ground) -> list[str]:
    """What nodes say of each other."""
    found = await surveyed(ground.nodes)
    return [text for info in found.values() for text in info["peers"].values()]


async def test_a_killed_node_lives_again(ground: Ground) -> None:
    """Requests to the others are answered meanwhile; only its own clients notice."""
    before = {node.port: node.pid for node in ground.nodes}
    said, record = await read_during(ground, standstill.killed(ground, Random(1), longest_s=0.2))
    (port,) = (node.port for node in ground.nodes if node.pid != before[node.port])
    assert "was gone" in said
    assert {failure.port for failure in record.failures} <= {port}


async def test_a_fault_of_several_nodes_needs_them(ground: Ground) -> None:
    """It says what is lacking."""
    alone = Ground(
        directory=ground.directory,
        server=ground.server,
        proxy=ground.proxy,
        places=ground.places[:1],
        secret=ground.secret,
        nodes=ground.nodes[:1],
    )
    for fault in (membership.split(alone, Random(1), seconds=0.1), hop.one_way(alone, Random(1))):
        with pytest.raises(FaultFailed, match="--nodes 3"):
            await fault
