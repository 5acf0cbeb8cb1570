"""Which rows of each table can matter to an answer. Pure.

For every place where a query reads a table, this finds *facts* that a row must meet to matter: as long
as only rows that break them change, in any of these places at once, the answer does not change.

The argument, by induction over the query. Let M be facts about a whole row of a level (what its WHERE
demands, and what the level outside demands of its output). A row of one join item is without effect
if every combination of it with rows of the other items breaks M:

* inner join: a combination also has to meet the join's condition, so both sides get M and the
  condition;
* left join: rows of the left side appear whether the condition holds or not, so they get M alone. A
  row of the right side that breaks M or the condition with every partner either matches nothing or only
  makes rows that are dropped anyway; and the row filled with nulls that takes their place breaks M
  too, for a fact about the right side is not true of nulls, and any other stays broken. So the right
  side gets M and the condition;
* full join: both sides get M alone;
* where M demands a value that is not null of a side that the join may fill with nulls, those filled rows
  are dropped, and the join is treated as the stricter one that does not make them.

Facts about the output of a subquery reach the columns behind it only through `columns_through`: not
past LIMIT, aggregates, DISTINCT ON or window functions, unless whole groups live or die by them. A
correlated subquery gets the facts of the row around it wherever it is evaluated for rows that meet
them only. WITH queries are taken apart as if written in place, each use for itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cluster.analysis.equalities import NOTHING, Column, Facts, Pair
from cluster.analysis.implications import (
    ANY_SUBLINK,
    FULL,
    INNER,
    LEFT,
    RIGHT,
    Implications,
    branches,
    definition,
    join_kind,
    may_answer_from_nothing,
    required,
    sides,
)
from cluster.analysis.nodetree import Node, NodeTextError
from cluster.analysis.scopes import (
    CTE,
    FUNCTION,
    GROUP,
    RELATION,
    SUBQUERY,
    VALUES,
    Comparable,
    Levels,
    Scope,
    conjuncts,
    operand,
)

MAX_LEVELS: Final = 5_000
"""How many levels are taken apart before the uses of a WITH query are no longer told apart."""

Place = tuple[int, int]
"""Where a level's output appears: the number of the level outside, and the entry in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One place where the query reads a relation, under the name ``alias``.

    ``bound``: by column number, the arguments one of which the column must equal for a row to matter,
    and how that follows, in words. ``only``: the relation's children are not read.
    """

    relation: int
    alias: str
    only: bool
    bound: dict[int, tuple[frozenset[int], str]]


def reads(query: Node, types: Comparable) -> tuple[Read, ...]:
    """Every place where ``query`` reads a relation. Raises `NodeTextError` for what it cannot follow."""
    walk = _Walk(types)
    walk.level(query, None, NOTHING, None)
    walk.missed(query)
    return tuple(walk.found)


def join_facts(kind: int, outside: Facts, condition: Facts, left: Facts, right: Facts) -> tuple[Facts, Facts]:
    """What rows of the left and of the right side of a join must meet to matter.

    ``outside``: facts about the joined row; ``condition``: what ON says; ``left`` and ``right``: what is
    true of every row of that side.
    """
    matched = outside + condition + left + right
    return (
        matched if kind in (INNER, RIGHT) else outside + left,
        matched if kind in (INNER, LEFT) else outside + right,
    )


def stricter(kind: int, *, left_not_null: bool, right_not_null: bool) -> int:
    """The join that is left of ``kind`` when rows with nulls in place of a side are dropped anyway."""
    fills_left = kind in (RIGHT, FULL) and not left_not_null
    fills_right = kind in (LEFT, FULL) and not right_not_null
    if fills_left:
        return FULL if fills_right else RIGHT
    return LEFT if fills_right else INNER


def columns_through(query: Node) -> frozenset[int]:
    """The output columns of which a fact tells that rows behind the level do not matter.

    Where rows are combined (GROUP BY, DISTINCT ON, window functions), those that all combined rows
    share; none where a row's place among the others decides (LIMIT) or where everything is combined.
    """
    if cuts(query) or query.nodes("groupingSets"):
        return frozenset()
    columns = [target for target in query.nodes("targetList") if not target.flag("resjunk")]
    for shared in _partitions(query):
        columns = [target for target in columns if target.number("ressortgroupref") in shared]
    return frozenset(target.number("resno") for target in columns)


def cuts(query: Node) -> bool:
    """Whether a row's place among the others decides if it comes out of the level: LIMIT, OFFSET."""
    return query.node("limitCount") is not None or query.node("limitOffset") is not None


def _partitions(query: Node) -> Iterator[frozenset[int]]:
    """For each way in which rows are combined, the sort group references of what they share."""
    if query.nodes("groupClause") or may_answer_from_nothing(query):
        yield _references(query.nodes("groupClause"))
    if query.flag("hasDistinctOn"):
        yield _references(query.nodes("distinctClause"))
    if query.flag("hasWindowFuncs"):
        for window in query.nodes("windowClause"):
            yield _references(window.nodes("partitionClause"))


def _references(clauses: list[Node]) -> frozenset[int]:
    return frozenset(clause.number("tleSortGroupRef") for clause in clauses)


class _Walk:
    """One walk over a query; ``found`` collects the reads."""

    def __init__(self, types: Comparable) -> None:
        self.found: list[Read] = []
        self._types = types
        self._levels = Levels()
        self._implied = Implications(types, self._levels)
        self._seen: set[int] = set()

    def level(self, query: Node, parent: Scope | None, facts: Facts, place: Place | None) -> None:
        """Walk one level, of whose evaluations only those matter for which ``facts`` hold."""
        scope = self._levels.open(query, parent)
        if query.node("setOperations") is not None:
            for branch in branches(scope):
                self.level(branch, scope, facts, None if cuts(query) else place)
        else:
            self._select(scope, facts, place)
        for clause in ("limitOffset", "limitCount"):
            self._expression(query.node(clause), scope, facts)
        for cte in query.nodes("cteList"):
            if id(cte) not in self._seen:
                self._once(cte, scope)

    def missed(self, query: Node) -> None:
        """Count every relation that the walk did not come by as read in full."""
        for node in query.walk():
            if node.label != "RANGETBLENTRY" or node.number("rtekind") != RELATION:
                continue
            # PostgreSQL 14 and 15 keep placeholders of an expanded view itself.
            if id(node) not in self._seen and node.text("relkind") != "v":
                self._read(node, NOTHING, None)

    def _select(self, scope: Scope, facts: Facts, place: Place | None) -> None:
        query = scope.query
        tree = required(query, "jointree")
        where = tree.node("quals")
        rows = facts + self._output(scope, place)
        rows += self._implied.condition(where, scope) + self._implied.always(tree, scope)
        for item in tree.nodes("fromlist"):
            self._item(item, scope, rows)
        self._expression(where, scope, rows)
        # An aggregate without GROUP BY is evaluated even if no row meets WHERE: nothing of this level
        # is known there.
        afterwards = facts if may_answer_from_nothing(query) else rows
        for part in (*query.nodes("targetList"), query.node("havingQual")):
            self._expression(part, scope, afterwards)
        for window in query.nodes("windowClause"):
            self._expression(window, scope, facts)
        for entry in scope.entries:
            self._within_entry(entry, scope, facts)

    def _output(self, scope: Scope, place: Place | None) -> Facts:
        """What is behind the columns by which the level outside knows this level's output."""
        if place is None:
            return NOTHING
        through = columns_through(scope.query)
        same: list[Pair] = []
        for target in scope.query.nodes("targetList"):
            resno = target.number("resno")
            term = operand(required(target, "expr"), scope, self._types) if resno in through else None
            if term is not None:
                same.append((Column(*place, resno, term.family), term))
        return Facts(same=tuple(same))

    def _item(self, item: Node, scope: Scope, rows: Facts) -> None:
        """Walk a join item, of whose rows only those matter that meet ``rows``."""
        match item.label:
            case "RANGETBLREF":
                self._entry(item.number("rtindex"), scope, rows)
            case "JOINEXPR":
                self._join(item, scope, rows)
            case _:
                raise NodeTextError(f"{item.label} in FROM")

    def _join(self, join: Node, scope: Scope, rows: Facts) -> None:
        left, right = sides(join)
        kind = stricter(
            join_kind(join),
            left_not_null=rows.refuse_null(scope.number, _entries(left)),
            right_not_null=rows.refuse_null(scope.number, _entries(right)),
        )
        on = join.node("quals")
        condition = self._implied.condition(on, scope)
        always = self._implied.always(left, scope), self._implied.always(right, scope)
        of_left, of_right = join_facts(kind, rows, condition, *always)
        self._item(left, scope, of_left)
        self._item(right, scope, of_right)
        self._expression(on, scope, rows if kind == FULL else rows + condition + always[0] + always[1])

    def _entry(self, index: int, scope: Scope, rows: Facts) -> None:
        entry = scope.entry(index)
        kind = entry.number("rtekind")
        if kind == RELATION:
            self._read(entry, rows, (scope.number, index))
        elif kind == SUBQUERY:
            self.level(required(entry, "subquery"), scope, rows, (scope.number, index))
        elif kind == CTE:
            cte, home = definition(entry, scope)
            if cte.flag("cterecursive") or len(self._levels) > MAX_LEVELS:
                self._once(cte, home)
            else:
                self._seen.add(id(cte))
                self.level(required(cte, "ctequery"), home, rows, (scope.number, index))

    def _once(self, cte: Node, home: Scope) -> None:
        """Walk the body of a WITH query, once, with nothing known from outside."""
        query = required(cte, "ctequery")
        if id(query) not in self._seen:
            self._seen.update((id(cte), id(query)))
            self.level(query, home, NOTHING, None)

    def _read(self, entry: Node, rows: Facts, place: Place | None) -> None:
        self._seen.add(id(entry))
        reference = entry.node("eref")
        bound = {}
        for column in rows.columns():
            if (column.scope, column.entry) == place and (arguments := rows.arguments(column)):
                bound[column.attnum] = arguments, self._why(rows, column, arguments)
        self.found.append(
            Read(
                relation=entry.number("relid"),
                alias=reference.text("aliasname") if reference is not None else "",
                only=not entry.flag("inh"),
                bound=bound,
            )
        )

    def _why(self, rows: Facts, column: Column, arguments: frozenset[int]) -> str:
        path = rows.path(column)
        if path:
            return " = ".join(map(self._levels.label, path))
        return f"{self._levels.label(column)} is one of {', '.join(f'${n}' for n in sorted(arguments))}"

    def _within_entry(self, entry: Node, scope: Scope, facts: Facts) -> None:
        """Walk the subqueries in a function's arguments, in VALUES, in GROUP BY."""
        field = {FUNCTION: "functions", VALUES: "values_lists", GROUP: "groupexprs"}.get(
            entry.number("rtekind")
        )
        if field is not None:
            self._expression(Node("LIST", {field: entry.fields[field]}), scope, facts)

    def _expression(self, expression: Node | None, scope: Scope, rows: Facts) -> None:
        """Walk the subqueries in ``expression``, which is evaluated for rows that meet ``rows``."""
        if expression is None:
            return
        demanded = {id(part) for part in conjuncts(expression)}
        pending = [expression]
        while pending:
            node = pending.pop()
            if node.label == "QUERY":
                raise NodeTextError("a query in an unexpected place")
            if node.label == "SUBLINK":
                self._sublink(node, scope, rows, demanded=id(node) in demanded)
                test = node.node("testexpr")
                pending.extend([] if test is None else [test])
            else:
                pending.extend(node.children())

    def _sublink(self, sublink: Node, scope: Scope, rows: Facts, *, demanded: bool) -> None:
        """``demanded``: nothing but the subquery being true (not: false or null) lets the row matter."""
        query, place = required(sublink, "subselect"), None
        if demanded and sublink.number("subLinkType") == ANY_SUBLINK:
            number, equal = self._implied.any_of(sublink, scope)
            rows, place = rows + equal, (number, 0)
        self.level(query, scope, rows, place)


def _entries(item: Node) -> frozenset[int]:
    """The range table entries that a join item joins (not those of subqueries in its conditions)."""
    if item.label == "JOINEXPR":
        left, right = sides(item)
        return _entries(left) | _entries(right)
    return frozenset((item.number("rtindex"),))
