"""What the conditions and joins of a query say of the rows that pass them. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from cluster.analysis.equalities import NOTHING, Argument, Column, Facts, Term
from cluster.analysis.nodetree import Node, NodeTextError
from cluster.analysis.scopes import (
    CTE,
    SUBQUERY,
    VALUES,
    Comparable,
    Levels,
    Scope,
    compared,
    conjuncts,
    operand,
)

INNER, LEFT, FULL, RIGHT = range(4)
"""Kinds of joins (``JoinType``)."""

EXISTS_SUBLINK: Final = 0
ANY_SUBLINK: Final = 2
"""Kinds of subqueries in expressions (``SubLinkType``): EXISTS, and IN or = ANY."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What is true of every row that a level gives, in names that mean something outside of it.

    ``outputs``: by output column, what it equals. ``outer``: facts about the levels around it.
    """

    outputs: dict[int, frozenset[Term]] = field(default_factory=dict)
    outer: Facts = NOTHING


def may_answer_from_nothing(query: Node) -> bool:
    """Whether the level gives a row even if no row meets its WHERE: an aggregate without GROUP BY."""
    grouped = query.flag("hasAggs") or query.node("havingQual") is not None
    return bool(query.nodes("groupingSets")) or (grouped and not query.nodes("groupClause"))


def sides(join: Node) -> tuple[Node, Node]:
    """The left and the right item of a join."""
    left, right = join.node("larg"), join.node("rarg")
    if left is None or right is None:
        raise NodeTextError("a join without two sides")
    return left, right


def join_kind(join: Node) -> int:
    """The kind of a join: INNER, LEFT, FULL or RIGHT."""
    kind = join.number("jointype")
    if kind not in (INNER, LEFT, FULL, RIGHT):
        raise NodeTextError(f"join type {kind}")
    return kind


def branches(scope: Scope) -> list[Node]:
    """The queries that a set operation combines."""
    top = scope.query.node("setOperations")
    leaves = [] if top is None else [node for node in top.walk() if node.label == "RANGETBLREF"]
    return [required(scope.entry(leaf.number("rtindex")), "subquery") for leaf in leaves]


def required(node: Node, field_name: str) -> Node:
    """The node in a field that must not be null."""
    found = node.node(field_name)
    if found is None:
        raise NodeTextError(f"{node.label} without {field_name}")
    return found


def definition(entry: Node, scope: Scope) -> tuple[Node, Scope]:
    """The WITH query that ``entry`` uses, and the level that defines it."""
    home = scope.up(entry.number("ctelevelsup"))
    name = entry.text("ctename")
    for cte in home.query.nodes("cteList"):
        if cte.text("ctename") == name:
            return cte, home
    raise NodeTextError(f"no WITH query {name}")


class Implications:
    """Reads facts off conditions, joins and subqueries."""

    def __init__(self, types: Comparable, levels: Levels) -> None:
        self._types = types
        self._levels = levels
        self._known: dict[tuple[int, int], Exported] = {}

    def condition(self, condition: Node | None, scope: Scope) -> Facts:
        """What a row of ``scope`` meets if ``condition`` is true of it."""
        facts = NOTHING
        for part in conjuncts(condition):
            facts += self._conjunct(part, scope)
        return facts

    def always(self, item: Node, scope: Scope) -> Facts:
        """What is true of every row of a join item, whatever its place in the query."""
        match item.label:
            case "FROMEXPR":
                return self._all(item.nodes("fromlist"), scope)
            case "RANGETBLREF":
                return self._of_entry(item.number("rtindex"), scope)
            case "JOINEXPR":
                left, right = sides(item)
                kept = {INNER: (left, right), LEFT: (left,), RIGHT: (right,), FULL: ()}
                kind = join_kind(item)
                met = self.condition(item.node("quals"), scope) if kind == INNER else NOTHING
                return met + self._all(kept[kind], scope)
        raise NodeTextError(f"{item.label} in FROM")

    def exported(self, query: Node, parent: Scope) -> Exported:
        """What is true of every row of a subquery of ``parent``."""
        place = id(query), parent.number
        if place not in self._known:
            self._known[place] = self._exported(query, parent)
        return self._known[place]

    def any_of(self, sublink: Node, scope: Scope) -> tuple[int, Facts]:
        """Of a true ``x IN (SELECT y …)``: a number for the subquery, and that x equals its y."""
        number = self._levels.number()
        equal = []
        for test in conjuncts(sublink.node("testexpr")):
            pair = compared(test, self._types) if test.label == "OPEXPR" else None
            terms = [operand(side, scope, self._types, subselect=number) for side in pair or ()]
            if len(terms) == 2 and terms[0] is not None and terms[1] is not None:
                equal.append((terms[0], terms[1]))
        return number, Facts(equal=tuple(equal))

    def _all(self, items: Iterable[Node], scope: Scope) -> Facts:
        facts = NOTHING
        for item in items:
            facts += self.always(item, scope)
        return facts

    def _of_entry(self, index: int, scope: Scope) -> Facts:
        entry = scope.entry(index)
        kind = entry.number("rtekind")
        if kind == SUBQUERY:
            return self._as_seen(self.exported(required(entry, "subquery"), scope), scope.number, index)
        if kind == CTE:
            cte, home = definition(entry, scope)
            if not cte.flag("cterecursive"):
                return self._as_seen(self.exported(required(cte, "ctequery"), home), scope.number, index)
        if kind == VALUES:
            return self._single_row(entry, index, scope)
        return NOTHING

    def _single_row(self, entry: Node, index: int, scope: Scope) -> Facts:
        rows = entry.fields["values_lists"]
        if not isinstance(rows, list) or len(rows) != 1 or not isinstance(rows[0], list):
            return NOTHING
        terms = [operand(item, scope, self._types) for item in rows[0] if isinstance(item, Node)]
        return Facts(
            same=tuple(
                (Column(scope.number, index, attnum, term.family), term)
                for attnum, term in enumerate(terms, 1)
                if term is not None
            )
        )

    def _as_seen(self, exported: Exported, number: int, index: int) -> Facts:
        """``exported`` in terms of the entry ``index`` of level ``number``."""
        same = tuple(
            (Column(number, index, resno, term.family), term)
            for resno, terms in exported.outputs.items()
            for term in terms
        )
        return Facts(same=same) + exported.outer

    def _exported(self, query: Node, parent: Scope) -> Exported:
        if may_answer_from_nothing(query):
            return Exported()
        scope = self._levels.open(query, parent)
        if query.node("setOperations") is not None:
            return _common([self.exported(branch, scope) for branch in branches(scope)], scope)
        tree = required(query, "jointree")
        facts = self.condition(tree.node("quals"), scope) + self.always(tree, scope)
        outputs = {}
        for target in query.nodes("targetList"):
            term = operand(required(target, "expr"), scope, self._types)
            if term is not None and not target.flag("resjunk"):
                outputs[target.number("resno")] = _meaningful(facts.alike(term), scope)
        mentioned = _meaningful(facts.columns(), scope)
        outer = [(term, alike) for term in mentioned for alike in _meaningful(facts.alike(term), scope)]
        return Exported(outputs=outputs, outer=Facts(same=tuple(outer)))

    def _conjunct(self, part: Node, scope: Scope) -> Facts:
        match part.label:
            case "OPEXPR":
                return self._equality(part, scope)
            case "SCALARARRAYOPEXPR" if part.flag("useOr"):
                return self._listed(part, scope)
            case "BOOLEXPR" if part.text("boolop") == "or":
                return self._either([self.condition(arm, scope) for arm in part.nodes("args")])
            case "SUBLINK" if part.number("subLinkType") in (EXISTS_SUBLINK, ANY_SUBLINK):
                return self._subquery(part, scope)
        return NOTHING

    def _equality(self, comparison: Node, scope: Scope) -> Facts:
        pair = compared(comparison, self._types)
        terms = [operand(side, scope, self._types) for side in pair or ()]
        if len(terms) == 2 and terms[0] and terms[1] and terms[0].family == terms[1].family:
            return Facts(equal=((terms[0], terms[1]),))
        return NOTHING

    def _listed(self, comparison: Node, scope: Scope) -> Facts:
        """``column IN ($1, $2)``."""
        pair = compared(comparison, self._types)
        if pair is None or pair[1].label != "ARRAYEXPR":
            return NOTHING
        column = operand(pair[0], scope, self._types)
        items = [operand(item, scope, self._types) for item in pair[1].nodes("elements")]
        if not isinstance(column, Column):
            return NOTHING
        numbers = [
            item.number for item in items if isinstance(item, Argument) and item.family == column.family
        ]
        return Facts(among=((column, frozenset(numbers)),)) if len(numbers) == len(items) else NOTHING

    def _either(self, arms: list[Facts]) -> Facts:
        """What holds if one of the arms of an OR does: a column that each of them binds."""
        columns = frozenset.intersection(*(arm.columns() for arm in arms))
        bound = {column: [arm.arguments(column) for arm in arms] for column in columns}
        return Facts(
            among=tuple(
                (column, frozenset[int]().union(*numbers))
                for column, numbers in bound.items()
                if all(numbers)
            )
        )

    def _subquery(self, sublink: Node, scope: Scope) -> Facts:
        exported = self.exported(required(sublink, "subselect"), scope)
        if sublink.number("subLinkType") == EXISTS_SUBLINK:
            return exported.outer
        number, facts = self.any_of(sublink, scope)
        return facts + self._as_seen(exported, number, 0)


def _common(parts: list[Exported], scope: Scope) -> Exported:
    """What is true of the rows of every part."""
    outputs = {
        resno: _meaningful(
            frozenset.intersection(*(part.outputs.get(resno, frozenset()) for part in parts)), scope
        )
        for resno in (parts[0].outputs if parts else ())
    }
    return Exported(outputs=outputs)


def _meaningful(terms: frozenset[Term] | frozenset[Column], scope: Scope) -> frozenset[Term]:
    """Those of ``terms`` that mean something outside of ``scope``."""
    outer = scope.outer()
    return frozenset(term for term in terms if isinstance(term, Argument) or term.scope in outer)
