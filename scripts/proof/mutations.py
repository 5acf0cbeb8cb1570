"""The guards of a node, each with what it protects and how a proof takes it away.

A mutation runs in a scene of its own, in which what the guard prevents happens soon.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from scripts.proof import database, removals, stages
from scripts.proof.scenes import Scene

Operation = Callable[[AsyncConnection[TupleRow]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """``remove`` changes the nodes' processes, ``alter`` the database before it is filled; ``faults`` help.

    ``nodes`` is how many it takes.
    """

    name: str
    guard: str
    protects: str
    scene: Scene
    remove: Callable[[], None] | None = None
    alter: Operation | None = None
    faults: Sequence[str] = ()
    nodes: int = 1


def table() -> str:
    """Every guard, what it protects and its mutation, for the README."""
    rows = [f"| {each.guard} | {each.protects} | `{each.name}` |" for each in MUTATIONS.values()]
    return "\n".join(("| guard | what it protects | mutation |", "|---|---|---|", *rows))


_ALL: Final = (
    Mutation(
        name="admit-check",
        guard="A load is admitted only if no change on its tags is known that its snapshot does not see",
        protects="against a change that the feed applied while the load was under way",
        remove=removals.admits_whatever_lands,
        scene=stages.SLOW,
    ),
    Mutation(
        name="low-water-check",
        guard="A load older than the log of changes is not kept",
        protects="against changes that the log has forgotten by then",
        remove=removals.forgets_that_the_log_is_short,
        scene=stages.FLOODED,
    ),
    Mutation(
        name="kept-check",
        guard="Only an entry in memory is vouched for up to the watermark",
        protects="an answer that was loaded but not kept, and is told of no change",
        remove=removals.claims_the_watermark_for_what_it_does_not_keep,
        scene=stages.FLOODED,
    ),
    Mutation(
        name="newer-of-two",
        guard="`as_of` is the newer of an entry's snapshot and the watermark",
        protects="an entry loaded at a snapshot that the feed has not reached yet",
        remove=removals.claims_the_watermark_for_what_is_newer,
        scene=stages.QUICK,
    ),
    Mutation(
        name="apply",
        guard="A change ends the open entries that carry its tag",
        protects="every answer from memory",
        remove=removals.applies_nothing,
        scene=stages.QUICK,
    ),
    Mutation(
        name="watermark-last",
        guard="The watermark moves after the whole batch has been applied",
        protects="an ended entry, whose last truth is dated by the watermark before",
        remove=removals.moves_the_watermark_first,
        scene=stages.FORGIVING,
        faults=("connections-refused",),
    ),
    Mutation(
        name="interval-end",
        guard="An ended entry answers no snapshot that sees what ended it",
        protects="exact reads",
        remove=removals.never_ends_an_interval,
        scene=stages.QUICK,
    ),
    Mutation(
        name="reach-back",
        guard="An entry answers a snapshot older than its own only if the log shows no change between",
        protects="exact reads",
        remove=removals.reaches_back_unchecked,
        scene=stages.QUICK,
    ),
    Mutation(
        name="running-transactions",
        guard="A poll also asks for transactions that ran when the watermark was taken",
        protects="against transactions that commit in another order than they began",
        remove=removals.polls_by_xmax_alone,
        scene=stages.QUICK,
    ),
    Mutation(
        name="bulk-tag",
        guard="A statement that touches more keys than the limit ends every entry of its table",
        protects="against bulk updates",
        remove=removals.ignores_bulk_tags,
        scene=stages.QUICK,
    ),
    Mutation(
        name="old-row-tags",
        guard="A row that changes has the tags of what it was, too",
        protects="the group that a row leaves",
        alter=database.forget_old_rows,
        scene=stages.QUICK,
    ),
    Mutation(
        name="truncate-trigger",
        guard="TRUNCATE is captured",
        protects="against TRUNCATE",
        alter=database.overlook_truncate,
        scene=stages.EMPTIED,
    ),
    Mutation(
        name="overflow-check",
        guard="A poll that found more changes than it may return voids everything",
        protects="against a burst of writes",
        remove=removals.believes_that_nothing_overflowed,
        scene=stages.OVERFLOWING,
    ),
    Mutation(
        name="trim-check",
        guard="Changes deleted beyond the watermark void everything",
        protects="a node that was away for longer than changes are kept",
        remove=removals.believes_that_nothing_was_trimmed,
        scene=stages.TRIMMED,
    ),
    Mutation(
        name="catalog-check",
        guard="DDL voids everything",
        protects="against ALTER TABLE, and views and functions that are replaced",
        alter=database.overlook_ddl,
        scene=stages.REDEFINED,
    ),
    Mutation(
        name="plan-check",
        guard="A load under the plan of another catalog is not used",
        protects="a load that waits for a lock while its view is replaced",
        remove=removals.keeps_plans_of_another_catalog,
        scene=stages.REPLANNED,
    ),
    Mutation(
        name="load-locks",
        guard="A load locks its tables before it takes its snapshot",
        protects="against TRUNCATE and rewrites, which show through older snapshots",
        remove=removals.takes_no_lock,
        scene=stages.EMPTIED,
    ),
    Mutation(
        name="file-check",
        guard="A materialized view's file must be the same before and after a load",
        protects="against REFRESH, which shows through older snapshots, where nothing can be locked",
        remove=removals.trusts_materialized_views,
        scene=stages.REFRESHED,
    ),
    Mutation(
        name="flight-check",
        guard="Who joins a load under way takes its answer only if that sees what he asked for",
        protects="strong reads and tokens",
        remove=removals.takes_any_flight,
        scene=stages.JOINED,
    ),
    Mutation(
        name="token-check",
        guard="An answer to a read with a token sees what the token names",
        protects="sessions, and whoever read his own write",
        remove=removals.ignores_tokens,
        scene=stages.QUICK,
    ),
    Mutation(
        name="strong-check",
        guard="A strong read is answered at a snapshot taken after it arrived",
        protects="strong reads",
        remove=removals.ignores_strong,
        scene=stages.QUICK,
    ),
    Mutation(
        name="poll-time",
        guard="A snapshot is as old as the poll that asked for it, not as its answer",
        protects="strong reads, and the bound on staleness",
        remove=removals.dates_polls_when_they_return,
        scene=stages.FAR,
    ),
    Mutation(
        name="age-check",
        guard="A FRESH answer is no older than `max_staleness`",
        protects="readers of a node whose feed does not get through",
        remove=removals.ignores_age,
        scene=stages.QUICK,
        faults=("feed-stalled",),
    ),
    Mutation(
        name="stale-label",
        guard="What is served beyond `max_staleness` while Postgres is out of reach is labelled STALE",
        protects="whoever must know",
        remove=removals.calls_everything_fresh,
        scene=stages.FORGIVING,
        faults=("connections-refused",),
    ),
    Mutation(
        name="incarnation-check",
        guard="A new incarnation of the database voids everything",
        protects="against crashes and promotions, after which transaction ids come again",
        remove=removals.believes_in_one_incarnation,
        scene=stages.QUICK,
        faults=("commits-lost",),
    ),
    Mutation(
        name="foreign-token",
        guard="A token of another incarnation is refused",
        protects="whoever holds a token from before a crash",
        remove=removals.takes_tokens_of_any_incarnation,
        scene=stages.QUICK,
        faults=("postgres-killed",),
    ),
    Mutation(
        name="history-floor",
        guard="A snapshot older than the history is refused: SNAPSHOT_EXPIRED",
        protects="exact reads of `store` caches, where versions have been deleted",
        alter=database.answer_from_what_is_left,
        scene=stages.STORED,
    ),
    Mutation(
        name="version-check",
        guard="A write at another version than the one it demands is refused",
        protects="whoever read a version and follows it",
        alter=database.demand_no_version,
        scene=stages.CONTESTED,
    ),
    Mutation(
        name="own-writes",
        guard="What a connection reads after a write of its own sees that write",
        protects="clients that carry no token",
        remove=removals.forgets_own_writes,
        scene=stages.STORED,
    ),
    Mutation(
        name="prepared-orphans",
        guard="The commit of a transaction that was prepared before a crash voids everything",
        protects="against two-phase commits whose changes the crash erased",
        alter=database.forget_prepared_transactions,
        scene=stages.PROMISED,
        faults=("postgres-killed",),
    ),
    Mutation(
        name="copy-check",
        guard="A copy from another node is admitted as a load is",
        protects="against a change that came here before the copy did",
        remove=removals.believes_copies,
        scene=stages.COPIED,
        nodes=3,
    ),
    Mutation(
        name="copy-tags",
        guard="A copy carries the tags of its entry",
        protects="against every change after it came",
        remove=removals.forgets_the_tags_of_copies,
        scene=stages.COPIED,
        nodes=3,
    ),
    Mutation(
        name="peer-question",
        guard="Another node is asked what the client asked, and its answer is held against that",
        protects="strong reads and tokens, whichever node is asked",
        remove=removals.asks_peers_for_anything,
        scene=stages.COPIED,
        nodes=3,
    ),
)

MUTATIONS: Final[Mapping[str, Mutation]] = {mutation.name: mutation for mutation in _ALL}
"""By the name that ``--mutate`` takes."""
