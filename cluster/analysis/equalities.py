"""What must hold of a row for it to matter to an answer: equalities between columns and arguments. Pure.

A *fact* is a condition without which a row cannot contribute. Two kinds are told apart, because a row
that an outer join fills with nulls breaks only the first:

* ``equal``: a comparison that must be true, so neither side is null;
* ``same``: two names of one value, such as a subquery's column and the expression behind it.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple


class Column(NamedTuple):
    """A column of one range table entry of one query level.

    ``scope`` numbers the level, ``entry`` and ``attnum`` count from 1. ``family`` is the family of types
    within which the column's values are equal exactly if their texts are.
    """

    scope: int
    entry: int
    attnum: int
    family: int


class Argument(NamedTuple):
    """The cache's argument ``$number``."""

    number: int
    family: int


Term = Column | Argument
Pair = tuple[Term, Term]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts that hold together. ``among``: the column equals one of those arguments (never null)."""

    equal: tuple[Pair, ...] = ()
    same: tuple[Pair, ...] = ()
    among: tuple[tuple[Column, frozenset[int]], ...] = ()

    def __add__(self, other: "Facts") -> "Facts":
        if not (other.equal or other.same or other.among):
            return self
        return Facts(
            equal=self.equal + other.equal,
            same=self.same + other.same,
            among=self.among + other.among,
        )

    def path(self, term: Term) -> tuple[Term, ...]:
        """From ``term`` over equalities to the nearest argument, both included; empty if none is near."""
        came_from = {term: term}
        for found in self._reach(term, came_from):
            if isinstance(found, Argument):
                return _path(found, came_from)
        return ()

    def arguments(self, term: Term) -> frozenset[int]:
        """The arguments one of which ``term`` must equal; empty if nothing says so."""
        path = self.path(term)
        if path and isinstance(path[-1], Argument):
            return frozenset((path[-1].number,))
        alike = self.alike(term)
        choices = [numbers for column, numbers in self.among if column in alike]
        return min(choices, key=len, default=frozenset())

    def columns(self) -> frozenset[Column]:
        """Every column that a fact is about."""
        terms = {term for pair in self.equal + self.same for term in pair if isinstance(term, Column)}
        return frozenset(terms.union(column for column, _ in self.among))

    def alike(self, term: Term) -> frozenset[Term]:
        """Every term that must equal ``term``, itself included."""
        return frozenset(self._reach(term, {term: term}))

    def refuse_null(self, scope: int, entries: Collection[int]) -> bool:
        """Whether a row in which every column of ``entries`` is null breaks one of these facts."""
        # An argument never leads from one column to another here: a constant column of a subquery is
        # the same as $1 in each of its rows, yet null where an outer join fills it.
        names = Facts(same=tuple(pair for pair in self.same if not _mentions_argument(pair)))
        compared = {term for pair in self.equal for term in pair if isinstance(term, Column)}
        compared.update(column for column, _ in self.among)
        return any(
            isinstance(alias, Column) and alias.scope == scope and alias.entry in entries
            for term in compared
            for alias in names.alike(term)
        )

    def _reach(self, term: Term, came_from: dict[Term, Term]) -> Iterator[Term]:
        near: dict[Term, list[Term]] = {}
        for left, right in self.equal + self.same:
            near.setdefault(left, []).append(right)
            near.setdefault(right, []).append(left)
        pending = [term]
        for reached in pending:  # grows while it is read: breadth first
            yield reached
            for neighbour in near.get(reached, ()):
                if neighbour not in came_from:
                    came_from[neighbour] = reached
                    pending.append(neighbour)


NOTHING: Final = Facts()


def _mentions_argument(pair: Pair) -> bool:
    return any(isinstance(term, Argument) for term in pair)


def _path(end: Term, came_from: dict[Term, Term]) -> tuple[Term, ...]:
    steps = [end]
    while came_from[steps[-1]] != steps[-1]:
        steps.append(came_from[steps[-1]])
    return tuple(reversed(steps))
