"""The proof counts questions of peers that a node asks another one."""

from dataclasses import replace

import pytest

from cluster.peering.answering import Answering
from cluster.peering.forwarding import Forwarding
from cluster.requests import Source
from nodes import captured
from peers.outbox import Outbox
from places import Place, configs, members
from scripts.proof import hops


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting, until the test is over."""
    for owner, name in ((Answering, "__call__"), (Outbox, "enter"), (Forwarding, "describe")):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    hops.watch()


def disagree(here: Place, there: Place) -> None:
    """Each believes that the other owns everything."""
    for one, other in ((here, there), (there, here)):
        generation = one.membership.generation
        ring = replace(generation.ring, owners=(other.name,) * 16384, hash=one.name.encode())
        one.membership.generation = replace(generation, ring=ring)


def counted(place: Place) -> object:
    """The count in INFO."""
    return place.reads.describe()[hops.SECTION][hops.FIELD]


async def test_one_hop_is_none_too_many(database: str) -> None:
    """Whoever is asked by a peer answers."""
    async with captured(database), members(configs(database, 2)) as (here, there):
        disagree(here, there)
        assert (await here.read("user:7")).source is Source.PEER
        assert counted(here) == 0


async def test_a_second_hop_is_counted(database: str) -> None:
    """A node that passes on what a peer asked is found out."""
    async with captured(database), members(configs(database, 2)) as (here, there):
        disagree(here, there)
        there.answers._node = there.reads  # type: ignore[assignment]
        await here.read("user:7")
        assert counted(there) == 1
