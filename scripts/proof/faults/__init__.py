"""What can go wrong around nodes, each of it real: `FAULTS` by name."""

from collections.abc import Mapping
from functools import partial
from typing import Final

from scripts.proof.faults import behind, clocks, hop, line, membership, promotion, server, standstill
from scripts.proof.faults.fault import Befalls, Fault, FaultFailed, Needs, needs_of

__all__ = ["FAULTS", "Befalls", "Fault", "FaultFailed", "Needs", "needs_of"]

_SEVERAL: Final = Needs(nodes=2)

_POSTGRES: Final = (
    Fault(
        name="postgres-restarted",
        summary="PostgreSQL is stopped, and started again",
        run=server.restarted,
        lasts_s=2.0,
    ),
    Fault(
        name="postgres-killed",
        summary="kill -9 of every process of PostgreSQL",
        run=server.killed,
        lasts_s=1.5,
    ),
    Fault(
        name="backend-killed",
        summary="kill -9 of one session's process",
        run=server.backend_killed,
        lasts_s=0.5,
    ),
    Fault(
        name="postgres-paused",
        summary="SIGSTOP of every process of PostgreSQL",
        run=server.paused,
        lasts_s=3.5,
    ),
    Fault(
        name="commits-lost",
        summary="a crash with synchronous_commit=off: acknowledged commits lost, xids used again",
        run=server.forgetful,
        lasts_s=3.5,
    ),
    Fault(
        name="standby-promoted",
        summary="the primary dies, a standby that lags behind takes over",
        run=promotion.promoted,
        lasts_s=5.0,
    ),
    Fault(
        name="answers-overtaken",
        summary="answers are held back until the commits that they show have been lost in a crash",
        run=behind.crashed,
        lasts_s=3.0,
    ),
    Fault(
        name="promoted-unseen",
        summary="a standby that lags behind takes over while the node is paused",
        run=behind.promoted,
        lasts_s=4.0,
    ),
)


def _network(subject: str, only: str | None, whose: str) -> tuple[Fault, ...]:
    """What can happen to connections: to those of one name, or to all."""
    return (
        Fault(
            name=f"{subject}-cut",
            summary=f"{whose} is reset, several times",
            run=partial(line.cut, only=only),
            lasts_s=2.0,
        ),
        Fault(
            name=f"{subject}-stalled",
            summary=f"what is sent over {whose} is held back",
            run=partial(line.stalled, only=only),
            lasts_s=2.5,
        ),
        Fault(
            name=f"{subject}-black-holed",
            summary=f"what is sent over {whose} is lost",
            run=partial(line.black_holed, only=only),
            lasts_s=2.5,
        ),
    )


_NETWORK: Final = (
    *_network("feed", line.FEED, "the feed's connection"),
    *_network("connections", None, "every connection of the node"),
    Fault(
        name="connections-refused",
        summary="every connection of the node is reset, and none is let in",
        run=line.refused,
        lasts_s=1.5,
    ),
    Fault(
        name="connections-slow",
        summary="what the node and PostgreSQL send each other arrives late",
        run=line.slow,
        lasts_s=3.0,
    ),
)

_NODE: Final = (
    Fault(
        name="changes-trimmed",
        summary="a node is paused while changes are deleted that it has not seen",
        run=standstill.trimmed,
        lasts_s=1.0,
    ),
    Fault(
        name="clock-stepped",
        summary="the wall clock of the nodes and of PostgreSQL is stepped to and fro",
        run=clocks.stepped,
        lasts_s=4.0,
        needs=Needs(clock=True),
    ),
    Fault(
        name="high-xids",
        summary="transaction ids above 2^32 from the start",
        run=clocks.high,
        lasts_s=0.1,
        needs=Needs(epoch=clocks.EPOCH),
    ),
)

_NODES: Final = (
    Fault(
        name="node-paused-5s",
        summary="SIGSTOP of a node, SIGCONT after 5 s",
        run=partial(standstill.paused, seconds=5.0),
        lasts_s=5.0,
        befalls=Befalls.NODES,
    ),
    Fault(
        name="node-paused-30s",
        summary="SIGSTOP of a node, SIGCONT after 30 s",
        run=partial(standstill.paused, seconds=30.0),
        lasts_s=30.0,
        befalls=Befalls.NODES,
    ),
    Fault(
        name="node-killed",
        summary="kill -9 of one of several nodes, and another life",
        run=standstill.killed,
        lasts_s=4.0,
        befalls=Befalls.NODES,
        needs=_SEVERAL,
    ),
    Fault(
        name="nodes-scaled",
        summary="two nodes more, then two in all, then as many as before; who goes drains",
        run=membership.scaled,
        lasts_s=14.0,
        befalls=Befalls.NODES,
        needs=_SEVERAL,
    ),
    Fault(
        name="nodes-restarted",
        summary="every node is drained and started again, one after the other",
        run=membership.restarted,
        lasts_s=12.0,
        befalls=Befalls.NODES,
        needs=_SEVERAL,
    ),
    Fault(
        name="views-split",
        summary="every node sees another part of the cluster for 30 s",
        run=partial(membership.split, seconds=30.0),
        lasts_s=30.5,
        befalls=Befalls.NODES,
        needs=_SEVERAL,
    ),
    Fault(
        name="hop-one-way",
        summary="between two nodes nothing arrives in one direction, though connections stand",
        run=hop.one_way,
        lasts_s=4.0,
        befalls=Befalls.NODES,
        needs=_SEVERAL,
    ),
)

FAULTS: Final[Mapping[str, Fault]] = {fault.name: fault for fault in (*_POSTGRES, *_NETWORK, *_NODE, *_NODES)}
