"""What it costs that every node polls the feed, and what one poller that streams to the others would. Arithmetic.

The usual costs of polls and changes were measured against PostgreSQL 18 on loopback, one session, prepared:
0.30 ms for a poll that finds nothing, 1.8 ms for one that finds 2,500 changes. A node took 3 us to apply a change
that touches none of its entries. What a message costs is an estimate from 1,700 calls a second between two nodes.
"""

from dataclasses import dataclass
from typing import Final

from cluster.config import FeedConfig, PostgresConfig, WriteConfig

CONNECTIONS: Final = PostgresConfig(url="postgresql://").connections + WriteConfig().connections + 1
"""Of one node, as it is configured where nobody says otherwise: to load, to write, and the feed's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """``poll_ms`` of the database's time a poll, ``row_us`` for each change in it; the rest is a node's time.

    ``message_ms`` is what a relay spends on sending one message to one node. The database has ``cores``, of
    which the feed may take the part ``budget``.
    """

    period_ms: float = FeedConfig().poll_period_s * 1e3
    poll_ms: float = 0.3
    row_us: float = 0.6
    node_poll_ms: float = 0.3
    apply_us: float = 3.0
    message_ms: float = 0.3
    cores: int = 4
    budget: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Everything in cores: the database's for all polls, for one poller's, a node's own, a relay's for sending."""

    nodes: int
    changes_per_s: int
    polls_per_s: float
    database: float
    database_one_poller: float
    node: float
    relay: float
    connections: int


def load(nodes: int, changes_per_s: int, costs: Costs) -> Load:
    """What ``nodes`` and so many changed rows a second come to."""
    rate = 1000 / costs.period_ms
    one = _one_poller(changes_per_s, costs)
    return Load(
        nodes=nodes,
        changes_per_s=changes_per_s,
        polls_per_s=nodes * rate,
        database=nodes * one,
        database_one_poller=one,
        node=(rate * costs.node_poll_ms / 1e3) + changes_per_s * costs.apply_us / 1e6,
        relay=(nodes - 1) * rate * costs.message_ms / 1e3,
        connections=nodes * CONNECTIONS,
    )


def most_nodes(changes_per_s: int, costs: Costs) -> int:
    """How many nodes can poll within the budget."""
    return int(costs.budget * costs.cores / _one_poller(changes_per_s, costs))


def period_ms(nodes: int, changes_per_s: int, costs: Costs) -> float | None:
    """The shortest period, at least the present one, at which ``nodes`` poll within the budget; None where none does."""
    left = costs.budget * costs.cores / nodes - changes_per_s * costs.row_us / 1e6
    return max(costs.period_ms, costs.poll_ms / left) if left > 0 else None


def _one_poller(changes_per_s: int, costs: Costs) -> float:
    return costs.poll_ms / costs.period_ms + changes_per_s * costs.row_us / 1e6
