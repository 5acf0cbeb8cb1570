"""The lives of a node: what it was told, input by input, and what could be seen of it after each.

A node's state is a function of its inputs, so lives that begin alike share their beginning: each input
is given to the real node once, and what followed is kept. Only the newest state is alive; to go on from an
older one, a new node is told everything again.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from cluster.snapshots import Snapshot
from scripts.simulation.messages import Claim, Limits, Load, Outcome, Violation
from scripts.simulation.model import Token
from scripts.simulation.replica import Replica

Told = tuple[Any, ...]
"""The name of a method of `Replica`, and its arguments."""


class Seen(NamedTuple):
    """A node from outside. ``outcomes`` are those of the last input; ``waiting`` the keys of loads asked for."""

    watermark: Snapshot | None
    incarnation: int | None
    kept: tuple[str, ...]
    ready: int
    callers: tuple[int, ...]
    waiting: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    stranded: str | None


class Stage:
    """Where the one living node of a process and side stands."""

    def __init__(self, limits: Limits) -> None:
        self.replica = Replica(limits)
        self.inputs = 0
        self.root = Life(self, None, ())
        self.at: Life | None = self.root

    def reach(self, life: "Life") -> Replica:
        """The node, brought to ``life``."""
        if self.at is not life:
            self.at = None
            self.replica.renew()
            for told in reversed([past.told for past in life.back()]):
                self.tell(told)
            self.at = life
        return self.replica

    def tell(self, told: Told) -> None:
        """Give the node one input. Raises `Violation` if it cannot take it."""
        self.inputs += 1
        try:
            getattr(self.replica, told[0])(*told[1:])
        except Exception as error:
            raise Violation(f"the node raised {error!r} when {told[0]}") from error


class Life:
    """One history of inputs. Two lives of one stage that were told the same are the same object."""

    __slots__ = ("_claims", "_next", "_stage", "parent", "seen", "told")

    def __init__(self, stage: Stage, parent: "Life | None", told: Told) -> None:
        self._stage = stage
        self._next: dict[Told, Life] = {}
        self._claims: dict[tuple[Token, ...], tuple[Claim, ...]] = {}
        self.parent = parent
        self.told = told
        self.seen = _seen(stage.replica)

    def then(self, *told: Any) -> "Life":
        """The life that goes on with this input."""
        known = self._next.get(told)
        if known is None:
            stage = self._stage
            stage.reach(self).outcomes.clear()
            stage.at = None  # until it has taken the input
            stage.tell(told)
            known = self._next[told] = stage.at = Life(stage, self, told)
        return known

    def back(self) -> "Iterator[Life]":
        """This life and those that it goes on from, without the first."""
        life = self
        while life.parent is not None:
            yield life
            life = life.parent

    def claims(self, tokens: tuple[Token, ...]) -> tuple[Claim, ...]:
        """See `Replica.claims`."""
        known = self._claims.get(tokens)
        if known is None:
            known = self._claims[tokens] = self._stage.reach(self).claims(tokens)
        return known

    def handed(self, key: str) -> Load:
        """The entry under ``key`` as it would travel to another node."""
        return self._stage.reach(self).handed(key)


def _seen(replica: Replica) -> Seen:
    return Seen(
        watermark=replica.node.timeline.watermark,
        incarnation=replica.node.timeline.incarnation,
        kept=replica.kept_keys,
        ready=replica.ready,
        callers=replica.callers,
        waiting=tuple(replica.loads.waiting),
        outcomes=tuple(replica.outcomes),
        stranded=replica.stranded(),
    )
