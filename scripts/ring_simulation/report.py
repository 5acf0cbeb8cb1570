"""What a run says: tables to read and figures for machines."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from scripts.ring_simulation.feeds import CONNECTIONS, Costs, Load, most_nodes, period_ms
from scripts.ring_simulation.rings import Measured


def figures(rings: Sequence[Measured], loads: Sequence[Load], costs: Costs) -> dict[str, Any]:
    """Everything, as JSON has it. ``ring_`` figures are the worst of all sizes up to 20; ``_100`` those of 100 nodes."""
    return {
        **_worst([ring for ring in rings if ring.nodes <= 20], ""),
        **_worst([ring for ring in rings if ring.nodes == 100], "_100"),
        "most_polling_nodes": {
            str(rate): most_nodes(rate, costs) for rate in sorted({load.changes_per_s for load in loads})
        },
        "rings": [asdict(ring) for ring in rings],
        "costs": asdict(costs),
        "feeds": [asdict(load) for load in loads],
    }


def tell(rings: Sequence[Measured], loads: Sequence[Load], costs: Costs) -> None:
    """Print the tables, and where polling by every node ends."""
    console = Console(width=120)
    console.print(_ring_table(rings))
    console.print(_feed_table(loads))
    for line in verdict(loads, costs):
        console.print(line, highlight=False)


def verdict(loads: Sequence[Load], costs: Costs) -> list[str]:
    """Where polling by every node stops scaling, a sentence for each rate of changes."""
    lines = [
        f"Within {costs.budget:.0%} of {costs.cores} cores of the database, with a poll every {costs.period_ms:g} ms:"
    ]
    largest = max(load.nodes for load in loads)
    for rate in sorted({load.changes_per_s for load in loads}):
        slower = period_ms(largest, rate, costs)
        then = f"every {slower:.0f} ms they could" if slower else "at no period could they"
        lines.append(
            f"  {rate:,} changes/s: {most_nodes(rate, costs):,} nodes can poll; for {largest:,}, {then}"
        )
    relayed = int(costs.period_ms / costs.message_ms)
    lines.append(f"  One poller that streams to the others fills a core of its own with {relayed} others.")
    lines.append(
        f"PostgreSQL's usual 100 connections are enough for {100 // CONNECTIONS} nodes of {CONNECTIONS} each."
    )
    return lines


def _worst(rings: Sequence[Measured], suffix: str) -> dict[str, float]:
    if not rings:
        return {}
    return {
        f"ring_balance{suffix}": max(ring.balance for ring in rings),
        f"ring_balance_after_leave{suffix}": max(ring.balance_after_leave for ring in rings),
        f"ring_moved{suffix}": max(max(ring.moved_on_join, ring.moved_on_leave_worst) for ring in rings),
        f"ring_backup_balance{suffix}": max(ring.backup_balance for ring in rings),
        f"ring_next_owner{suffix}": min(ring.next_owner for ring in rings),
    }


def _ring_table(rings: Sequence[Measured]) -> Table:
    table = Table(
        "nodes",
        "max/mean",
        "backups",
        "one less",
        "join",
        "leave",
        "worst",
        "keys",
        "ideal",
        "next",
        "build s",
    )
    for ring in rings:
        balances = (ring.balance, ring.backup_balance, ring.balance_after_leave)
        moves = (ring.moved_on_join, ring.moved_on_leave, ring.moved_on_leave_worst)
        keys = (f"{ring.keys_moved_on_join:.2%}", f"{ring.keys_moved_ideally:.2%}", f"{ring.next_owner:.1%}")
        table.add_row(
            str(ring.nodes), *(f"{each:.3f}" for each in (*balances, *moves)), *keys, f"{ring.build_s:.2f}"
        )
    table.caption = (
        "max/mean slots of owners, of backups, of owners after one left; slots moved against ideal on join and "
        "leave; keys moved on join; share of a leaver's slots that its backup owns next"
    )
    return table


def _feed_table(loads: Sequence[Load]) -> Table:
    table = Table(
        "changes/s", "nodes", "polls/s", "database", "one poller", "relay", "each node", "connections"
    )
    for load in loads:
        cores = (load.database, load.database_one_poller, load.relay, load.node)
        table.add_row(
            f"{load.changes_per_s:,}",
            f"{load.nodes:,}",
            f"{load.polls_per_s:,.0f}",
            *(f"{each:.3f}" for each in cores),
            f"{load.connections:,}",
        )
    table.caption = (
        "in cores: the database's if every node polls and if one does; that one's for sending; each node's"
    )
    return table
