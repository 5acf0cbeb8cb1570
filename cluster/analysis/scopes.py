"""One query level of an analysed query, and what its expressions name. Pure.

A *level* is one evaluation of a query node: a WITH query used twice makes two levels, so that what
is known of one use is not taken for the other.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from cluster.analysis.equalities import Argument, Column, Term
from cluster.analysis.nodetree import Node, NodeTextError

RELATION: Final = 0
SUBQUERY: Final = 1
JOIN: Final = 2
FUNCTION: Final = 3
VALUES: Final = 5
CTE: Final = 6
GROUP: Final = 9
"""Kinds of range table entries (``RTEKind``)."""

_EXTERN, _SUBSELECT = 0, 2  # kinds of PARAM
_INT: Final = 23
_TEXT: Final = 25
_FAMILIES: Final = {
    21: _INT, 23: _INT, 20: _INT,
    25: _TEXT, 1043: _TEXT,
    16: 16, 17: 17, 26: 26, 1082: 1082, 2950: 2950,
}  # fmt: skip
"""Types whose values are equal exactly if their texts are: bool, bytea, oid, date, uuid stand alone;
the integers, and text and varchar, compare with each other."""

EQUALITY: Final = frozenset((15, 91, 94, 96, 98, 410, 416, 532, 533, 607, 1093, 1862, 1868, 1955, 2972))
"""The ``=`` operators within these families. Oids of built-in operators are the same in every version."""

INTEGER_CASTS: Final = frozenset((313, 314, 480, 481, 714, 754))
"""The casts between int2, int4 and int8: they keep the value or raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparable:
    """What of the catalog says whether two values are equal exactly if their texts are.

    ``domains``: the type under each domain. ``nondeterministic``: collations in which different texts are equal.
    """

    domains: Mapping[int, int] = field(default_factory=dict)
    nondeterministic: frozenset[int] = frozenset()

    def family(self, type_oid: int, collation: int) -> int | None:
        """Types of one family compare as their texts do; None for a type that does not."""
        if collation in self.nondeterministic:
            return None
        return _FAMILIES.get(self.domains.get(type_oid, type_oid))

    def argument_family(self, type_oid: int) -> int | None:
        """The same for an argument: loads write its text by its own type, which so is no domain."""
        return None if type_oid in self.domains else self.family(type_oid, 0)


class Scope:
    """One level: its query node, its number, and the level around it."""

    __slots__ = ("entries", "number", "parent", "query")

    def __init__(self, query: Node, number: int, parent: "Scope | None") -> None:
        self.query = query
        self.number = number
        self.parent = parent
        self.entries = query.nodes("rtable")

    def __repr__(self) -> str:
        return f"<Scope {self.number} in {self.parent and self.parent.number}>"

    def up(self, levels: int) -> "Scope":
        """The level ``levels`` further out."""
        scope = self
        for _ in range(levels):
            if scope.parent is None:
                raise NodeTextError("a name refers to a level outside the query")
            scope = scope.parent
        return scope

    def entry(self, index: int) -> Node:
        """The range table entry ``index``, counted from 1."""
        if not 0 < index <= len(self.entries):
            raise NodeTextError(f"no range table entry {index}")
        return self.entries[index - 1]

    def outer(self) -> frozenset[int]:
        """The numbers of the levels around this one."""
        found, scope = set(), self.parent
        while scope is not None:
            found.add(scope.number)
            scope = scope.parent
        return frozenset(found)


class Levels:
    """Opens levels and numbers them."""

    def __init__(self) -> None:
        self._open: dict[int, Scope] = {}
        self._last = 0

    def __len__(self) -> int:
        return self._last

    def open(self, query: Node, parent: Scope | None) -> Scope:
        """A new level of ``query`` within ``parent``."""
        scope = Scope(query, self.number(), parent)
        self._open[scope.number] = scope
        return scope

    def number(self) -> int:
        """A number that no level has."""
        self._last += 1
        return self._last

    def label(self, term: Term) -> str:
        """What a reader calls ``term``."""
        if isinstance(term, Argument):
            return f"${term.number}"
        scope = self._open.get(term.scope)
        reference = scope.entry(term.entry).node("eref") if scope is not None else None
        if reference is None:
            return f"column {term.attnum} of a subquery"
        return f"{reference.text('aliasname')}.{reference.texts('colnames')[term.attnum - 1]}"


def operand(
    expression: Node, scope: Scope, types: Comparable, *, subselect: int | None = None
) -> Term | None:
    """What ``expression`` names, if it is no more than a column or an argument under harmless casts.

    ``subselect`` is the number by which the columns of the subquery of an IN are called.
    """
    match expression.label:
        case "VAR":
            return _column(expression, scope, types)
        case "PARAM":
            return _parameter(expression, types, subselect)
        case "RELABELTYPE" | "COLLATEEXPR":
            below = expression.node("arg")
        case "FUNCEXPR" if expression.number("funcid") in INTEGER_CASTS:
            below = expression.item("args", 0)
        case _:
            return None
    term = None if below is None else operand(below, scope, types, subselect=subselect)
    if term is None or expression.label != "RELABELTYPE":
        return term
    # A change of type without a function, such as int4 to oid, still changes the text.
    return term if types.family(expression.number("resulttype"), 0) == term.family else None


def conjuncts(condition: Node | None) -> Iterator[Node]:
    """The conditions all of which must be true for ``condition`` to be true."""
    if condition is None:
        return
    if condition.label == "BOOLEXPR" and condition.text("boolop") == "and":
        for part in condition.nodes("args"):
            yield from conjuncts(part)
    else:
        yield condition


def compared(condition: Node, types: Comparable) -> tuple[Node, Node] | None:
    """The two sides of a comparison that is true exactly if their texts are equal and not null."""
    if condition.label not in ("OPEXPR", "SCALARARRAYOPEXPR"):
        return None
    if condition.number("opno") not in EQUALITY or condition.number("inputcollid") in types.nondeterministic:
        return None
    sides = condition.nodes("args")
    return (sides[0], sides[1]) if len(sides) == 2 else None


def _parameter(parameter: Node, types: Comparable, subselect: int | None) -> Term | None:
    kind, number, type_oid = (parameter.number(name) for name in ("paramkind", "paramid", "paramtype"))
    if kind == _EXTERN:
        family = types.argument_family(type_oid)
        return None if family is None else Argument(number, family)
    family = types.family(type_oid, parameter.number("paramcollid"))
    if kind != _SUBSELECT or subselect is None or family is None:
        return None
    return Column(subselect, 0, number, family)


def _column(var: Node, scope: Scope, types: Comparable) -> Term | None:
    scope = scope.up(var.number("varlevelsup"))
    index, attnum = var.number("varno"), var.number("varattno")
    entry = scope.entry(index)
    aliases = {JOIN: "joinaliasvars", GROUP: "groupexprs"}.get(entry.number("rtekind"))
    if attnum <= 0:
        return None
    if aliases is not None:
        alias = entry.item(aliases, attnum - 1)
        return None if alias is None else operand(alias, scope, types)
    family = types.family(var.number("vartype"), var.number("varcollid"))
    return None if family is None else Column(scope.number, index, attnum, family)
