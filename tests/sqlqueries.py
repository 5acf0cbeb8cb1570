"""Random queries over the schema of `sqlfuzz`.

They give the same rows whatever the plan: a LIMIT comes with a total order, and window functions and
aggregates do not see the order of equal rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlfuzz import INTS, PARTS, TABLES, VALUES, VIEWS, Choices


@dataclass(frozen=True, slots=True)
class Col:
    """A column that can be named: its SQL and its type."""

    sql: str
    type: str


@dataclass(slots=True)
class Query:
    """SQL with the types of its parameters."""

    sql: str = ""
    parameters: list[str] = field(default_factory=list)


def query(choices: Choices) -> Query:
    """A random query over the schema."""
    maker = _Maker(choices)
    sql, _ = maker.query(choices.of((1, 2, 2, 2, 3)), [])
    return Query(sql, maker.parameters)


class _Maker:
    """Makes one query. ``depth`` is how many more levels it may open; ``outer``: columns from outside."""

    def __init__(self, choices: Choices) -> None:
        self.parameters: list[str] = []
        self._c = choices
        self._names = 0
        self._ctes: dict[str, dict[str, str]] = {}

    def query(
        self, depth: int, outer: list[Col], types: Sequence[str] | None = None
    ) -> tuple[str, list[str]]:
        """A query expression and the types of its columns c0, c1, …"""
        known = dict(self._ctes)
        head = self._with(depth, outer) if depth > 1 and self._c.chance(18) else ""
        if depth > 0 and self._c.chance(12):
            left, types = self.query(depth - 1, outer, types)
            right, _ = self.query(depth - 1, outer, types)
            operator = self._c.of(("UNION ALL", "UNION", "INTERSECT", "EXCEPT", "EXCEPT ALL"))
            sql = f"({left}) {operator} ({right})"
        elif depth > 0 and types is None and self._c.chance(35):
            sql, types = self._layered(depth, outer)
        else:
            sql, types = self._select(depth, outer, types)
        if self._c.chance(10):
            sql = f"SELECT * FROM ({sql}) AS {self._name('l')} ORDER BY {_all(types)} LIMIT {1 + self._c.below(3)}"
            sql += " OFFSET 1" if self._c.chance(20) else ""
        self._ctes = known
        return head + sql, list(types)

    def _layered(self, depth: int, outer: list[Col]) -> tuple[str, list[str]]:
        """A condition on a subquery: does it reach the rows behind?"""
        inner, types = self.query(depth - 1, outer)
        name = self._name("y")
        cols = [Col(f"{name}.c{n}", kind) for n, kind in enumerate(types)]
        source = f"({inner}) AS {name}"
        if self._c.chance(50):
            item, more = self._item(0, [], [])
            kind = self._c.of(("JOIN", "LEFT JOIN", "RIGHT JOIN"))
            source += f" {kind} {item} ON {self._on(0, cols, more, outer, plain=True)}"
            cols += more
        where = f" WHERE {self._bound(cols)}" if not self._c.chance(30) else ""
        listed = ", ".join(f"{col.sql} AS c{n}" for n, col in enumerate(cols))
        return f"SELECT {listed} FROM {source}{where}", [col.type for col in cols]

    def _with(self, depth: int, outer: list[Col]) -> str:
        parts = []
        for _ in range(1 + self._c.below(2)):
            name = self._name("w")
            sql, types = self.query(depth - 1, outer)
            parts.append(f"{name} AS {self._c.of(('', 'MATERIALIZED ', 'NOT MATERIALIZED '))}({sql})")
            self._ctes[name] = {f"c{n}": kind for n, kind in enumerate(types)}
        if self._c.chance(15):
            name = self._name("w")
            start, _ = self.query(0, outer, ["int"])
            parts.append(
                f"{name} (c0) AS ({start} UNION SELECT t1.id FROM t1 JOIN {name} AS up ON up.c0 = t1.t0_id)"
            )
            self._ctes[name] = {"c0": "int"}
            return f"WITH RECURSIVE {', '.join(parts)} "
        return f"WITH {', '.join(parts)} "

    def _select(self, depth: int, outer: list[Col], types: Sequence[str] | None) -> tuple[str, list[str]]:
        source, cols = self._from(depth, outer)
        where = self._where(depth, cols, outer)
        style = self._c.of(
            ("plain", "plain", "plain", "distinct", "group", "group", "total", "window", "first")
        )
        maker = {"group": self._grouped, "total": self._total, "window": self._windowed, "first": self._first}
        listed, tail, found = maker.get(style, self._plain)(depth, cols, outer, types)
        head = "SELECT DISTINCT" if style == "distinct" else "SELECT"
        if style == "first":
            head = "SELECT DISTINCT ON (1)"
        named = ", ".join(f"{item} AS c{n}" for n, item in enumerate(listed))
        return f"{head} {named} FROM {source}{where}{tail}", found

    def _plain(
        self, depth: int, cols: list[Col], outer: list[Col], types: Sequence[str] | None
    ) -> tuple[list[str], str, list[str]]:
        wanted = types or [col.type for col in (self._c.of(cols) for _ in range(1 + self._c.below(3)))]
        listed = [self._expression(depth, cols, outer, kind) for kind in wanted]
        return listed, "", list(wanted)

    def _first(
        self, depth: int, cols: list[Col], outer: list[Col], types: Sequence[str] | None
    ) -> tuple[list[str], str, list[str]]:
        listed, _, found = self._plain(depth, cols, outer, types)
        return listed, f" ORDER BY {_all(found)}", found

    def _total(
        self, depth: int, cols: list[Col], outer: list[Col], types: Sequence[str] | None
    ) -> tuple[list[str], str, list[str]]:
        wanted = list(types or ["int8", "int"])
        listed = [
            self._scalar(depth - 1, outer, kind)
            if outer and depth > 0 and self._c.chance(40)
            else self._aggregate(cols, kind)
            for kind in wanted
        ]
        return listed, "", wanted

    def _grouped(
        self, depth: int, cols: list[Col], outer: list[Col], types: Sequence[str] | None
    ) -> tuple[list[str], str, list[str]]:
        keys = list(dict.fromkeys(self._c.of(cols) for _ in range(1 + self._c.below(2))))
        wanted = list(types or [*(key.type for key in keys), "int8"])
        listed = []
        for kind in wanted:
            alike = [key for key in keys if key.type == kind]
            if alike and not self._c.chance(20):
                listed.append(self._c.of(alike).sql)
            elif depth > 0 and self._c.chance(25):
                listed.append(self._scalar(depth - 1, keys, kind))
            else:
                listed.append(self._aggregate(cols, kind))
        sets = ", ".join(key.sql for key in keys)
        tail = f" GROUP BY {f'ROLLUP ({sets})' if self._c.chance(12) else sets}"
        if self._c.chance(20):
            tail += f" HAVING {self._c.of((f'{keys[0].sql} IS NOT NULL', 'count(*) > 1'))}"
        return listed, tail, wanted

    def _windowed(
        self, depth: int, cols: list[Col], outer: list[Col], types: Sequence[str] | None
    ) -> tuple[list[str], str, list[str]]:
        listed, _, found = self._plain(depth, cols, outer, types)
        by, order = self._c.of(cols).sql, self._c.of(cols).sql
        if types is None:
            part = f"PARTITION BY {by} " if not self._c.chance(25) else ""
            listed.append(
                f"{self._c.of(('count(*)', 'rank()', 'dense_rank()'))} OVER ({part}ORDER BY {order})"
            )
            listed.append(by)
            found += ["int8", next(col.type for col in cols if col.sql == by)]
        return listed, "", found

    def _from(self, depth: int, outer: list[Col]) -> tuple[str, list[Col]]:
        source, cols = self._item(depth, outer, [])
        for _ in range(self._c.of((0, 0, 1, 1, 2))):
            kind = self._c.of(("JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", ",", "RIGHT JOIN", "FULL JOIN"))
            lateral = cols if kind in ("JOIN", "LEFT JOIN", ",") else []
            item, more = self._item(depth, outer, lateral)
            if kind == ",":
                source, cols = f"{source} CROSS JOIN {item}", cols + more
                continue
            on = self._on(depth, cols, more, outer, plain=kind == "FULL JOIN")
            source, cols = f"({source} {kind} {item} ON {on})", cols + more
        return source, cols

    def _on(self, depth: int, left: list[Col], right: list[Col], outer: list[Col], *, plain: bool) -> str:
        pairs = [(one, other) for one in left for other in right if _comparable(one.type, other.type)]
        parts = []
        if pairs:
            one, other = self._c.of(pairs)
            parts.append(f"{one.sql} = {other.sql}")
        if not plain and self._c.chance(35):
            parts.append(self._predicate(depth - 1, left + right, outer))
        return " AND ".join(parts) or "true"

    def _item(self, depth: int, outer: list[Col], siblings: list[Col]) -> tuple[str, list[Col]]:
        alias = self._name("x")
        kind = self._c.below(20)
        if kind >= 15 and depth > 0:
            lateral = bool(siblings) and self._c.chance(50)
            sql, types = self.query(depth - 1, outer + siblings if lateral else outer)
            columns = {f"c{n}": found for n, found in enumerate(types)}
            source = f"{'LATERAL ' if lateral else ''}({sql}) AS {alias}"
        elif kind >= 13 and self._ctes:
            name = self._c.of(list(self._ctes))
            source, columns = f"{name} AS {alias}", self._ctes[name]
        elif kind == 12:
            source, columns = f"(VALUES ({self._parameter('int')}::int)) AS {alias} (c0)", {"c0": "int"}
        else:
            relations = {**TABLES, **VIEWS, **PARTS} if kind >= 6 else TABLES
            name = self._c.of(list(relations))
            only = "ONLY " if name in ("p", "h") and self._c.chance(15) else ""
            source, columns = f"{only}{name} AS {alias}", relations[name]
        return source, [Col(f"{alias}.{name}", found) for name, found in columns.items()]

    def _where(self, depth: int, cols: list[Col], outer: list[Col]) -> str:
        parts = []
        if not self._c.chance(25):
            parts.append(self._bound(cols))
        parts += [self._predicate(depth - 1, cols, outer) for _ in range(self._c.of((0, 0, 1, 1, 2)))]
        if outer and self._c.chance(70):
            pairs = [(i, o) for i in cols for o in outer if _comparable(i.type, o.type)]
            if pairs:
                inner, outside = self._c.of(pairs)
                parts.append(f"{inner.sql} = {outside.sql}")
        return f" WHERE {' AND '.join(parts)}" if parts else ""

    def _bound(self, cols: list[Col]) -> str:
        col = self._c.of(cols)
        return f"{col.sql} = {self._parameter(col.type)}"

    def _predicate(self, depth: int, cols: list[Col], outer: list[Col]) -> str:
        kind = self._c.below(19)
        if kind < 11:
            return self._simple(kind, cols, outer)
        if kind < 15:
            one = self._predicate(depth - 1, cols, outer)
            if kind < 13:
                return f"({one} OR {self._predicate(depth - 1, cols, outer)})"
            return f"NOT ({one})" if kind == 13 else f"({one}) IS NOT {self._c.of(('TRUE', 'FALSE'))}"
        return self._bound(cols) if depth <= 0 else self._of_subquery(kind, depth, cols, outer)

    def _simple(self, kind: int, cols: list[Col], outer: list[Col]) -> str:
        if kind < 3:
            return self._bound(cols)
        col = self._c.of(cols + outer) if self._c.chance(15) else self._c.of(cols)
        if kind < 6:
            alike = [other for other in cols + outer if _comparable(other.type, col.type)]
            operator = self._c.of(("=", "=", "<>", "<", "IS NOT DISTINCT FROM"))
            return f"{col.sql} {operator} {self._c.of(alike).sql}"
        negated = self._c.of(("", "NOT "))
        tests = {
            6: lambda: f"IS {negated}NULL",
            7: lambda: f"{negated}IN ({self._parameter(col.type)}, {self._parameter(col.type)})",
            8: lambda: f"IS {negated}DISTINCT FROM {self._parameter(col.type)}",
            9: lambda: f"::text = {self._parameter('text')}",
            10: lambda: f"= {self._c.of(VALUES[col.type])}::{col.type}",
        }
        return f"{col.sql} {tests[kind]()}"

    def _of_subquery(self, kind: int, depth: int, cols: list[Col], outer: list[Col]) -> str:
        if kind == 15:
            sql, _ = self.query(depth - 1, outer + cols)
            return f"{self._c.of(('', 'NOT '))}EXISTS ({sql})"
        col = self._c.of(cols)
        if kind < 18:
            sql, _ = self.query(depth - 1, outer + cols, [col.type])
            return f"{col.sql} {self._c.of(('', '', 'NOT '))}IN ({sql})"
        return f"{col.sql} = {self._scalar(depth - 1, outer + cols, col.type)}"

    def _expression(self, depth: int, cols: list[Col], outer: list[Col], kind: str) -> str:
        alike = [col for col in cols if col.type == kind] or [col for col in outer if col.type == kind]
        if depth > 0 and self._c.chance(8):
            return self._scalar(depth - 1, cols + outer, kind)
        if not alike or self._c.chance(4):
            return f"{self._parameter(kind)}::{kind}"
        col = self._c.of(alike)
        if kind == "bool" and depth > 0 and self._c.chance(25):
            tested = self._c.of(cols)
            sql, _ = self.query(depth - 1, cols + outer, [tested.type])
            return f"{tested.sql} {self._c.of(('', 'NOT '))}IN ({sql})"
        return f"coalesce({col.sql}, {self._c.of(VALUES[kind])})" if self._c.chance(6) else col.sql

    def _scalar(self, depth: int, outer: list[Col], kind: str) -> str:
        sql, _ = self.query(depth, outer, [kind])
        if kind == "bool":
            return f"(SELECT bool_or(c0) FROM ({sql}) AS {self._name('m')})"
        if self._c.chance(60):
            return f"(SELECT max(c0) FROM ({sql}) AS {self._name('m')})"
        return f"(SELECT c0 FROM ({sql}) AS {self._name('m')} ORDER BY c0 LIMIT 1)"

    def _aggregate(self, cols: list[Col], kind: str) -> str:
        if kind == "int8":
            return self._c.of(("count(*)", f"count({self._c.of(cols).sql})"))
        alike = [col for col in cols if col.type == kind]
        if not alike:
            return f"max({self._c.of(VALUES[kind])}::{kind})" if kind != "bool" else "bool_or(true)"
        col = self._c.of(alike).sql
        if kind == "bool":
            return f"bool_or({col})"
        if kind == "text" and self._c.chance(30):
            return f"string_agg({col}, ',' ORDER BY {col})"
        return f"{self._c.of(('min', 'max'))}({col})"

    def _parameter(self, kind: str) -> str:
        alike = [number for number, found in enumerate(self.parameters, 1) if found == kind]
        if not alike or self._c.chance(35):
            self.parameters.append(kind)
            return f"${len(self.parameters)}"
        return f"${self._c.of(alike)}"

    def _name(self, stem: str) -> str:
        self._names += 1
        return f"{stem}{self._names}"


def _comparable(one: str, other: str) -> bool:
    return one == other or {one, other} <= {*INTS, "numeric"}


def _all(types: Sequence[str]) -> str:
    return ", ".join(str(n) for n in range(1, len(types) + 1))
