"""How often each cache was asked for here, and what came of it. Pure.

An entry in memory points to its cache's tally, so that a hit is counted without looking anything up.
"""

from collections.abc import Mapping

from cluster.requests import Source, State


class Tally:
    """The reads of one cache that a node was asked for, by clients and by other nodes.

    ``door_hits`` went no further than the RESP door's hit path, ``node_hits`` are all others that memory answered,
    at once or after catching up with the feed. All else that this node did itself are ``misses``, also those that it
    answered out of memory as ``stale``. Of the ``forwarded``, ``returned`` came back to this node, and are hits or
    misses, too.
    """

    __slots__ = (
        "backup_answers", "backup_stale", "door_hits", "forwarded", "misses", "node_hits", "owner_answers",
        "owner_stale", "returned", "stale",
    )  # fmt: skip

    def __init__(self) -> None:
        self.door_hits = self.node_hits = self.misses = self.stale = 0
        self.forwarded = self.returned = 0
        self.owner_answers = self.owner_stale = self.backup_answers = self.backup_stale = 0

    def __repr__(self) -> str:
        return f"<Tally {self.lookups} lookups, {self.hits} hits>"

    @property
    def hits(self) -> int:
        """What memory answered as it was asked."""
        return self.door_hits + self.node_hits

    @property
    def lookups(self) -> int:
        """Each read once, whoever answered it."""
        return self.hits + self.misses + self.forwarded - self.returned

    def answered(self, source: Source, state: State) -> None:
        """Another node has answered: the owner, or its backup."""
        stale = state is State.STALE
        if source is Source.PEER:
            self.owner_answers += 1
            self.owner_stale += stale
        else:
            self.backup_answers += 1
            self.backup_stale += stale

    def answers(self) -> Mapping[tuple[Source, State], int]:
        """The reads that were answered without a load by this node."""
        return {
            (Source.LOCAL, State.FRESH): self.hits,
            (Source.LOCAL, State.STALE): self.stale,
            (Source.PEER, State.FRESH): self.owner_answers - self.owner_stale,
            (Source.PEER, State.STALE): self.owner_stale,
            (Source.BACKUP, State.FRESH): self.backup_answers - self.backup_stale,
            (Source.BACKUP, State.STALE): self.backup_stale,
        }


class Tallies(dict[str, Tally]):
    """One of each cache by its name, made when it is first asked for."""

    def __missing__(self, cache: str) -> Tally:
        tally = self[cache] = Tally()
        return tally

    def total(self, count: str) -> int:
        """The sum of one count over all caches."""
        return sum(getattr(tally, count) for tally in self.values())
