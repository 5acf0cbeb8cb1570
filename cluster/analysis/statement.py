"""The text of a cache's SQL: that it is one plain SELECT, and whether its literals read the clock. Pure."""

import re
from typing import Final

from pglast import ast, parse_sql
from pglast.parser import ParseError, Token, scan
from pglast.visitors import Ancestor, Visitor

from snapring.errors import CacheRefused

_CLOCK_WORDS: Final = ("now", "today", "tomorrow", "yesterday")
_PLAIN_LITERAL: Final = re.compile(r"'[^'\\]*'|\$\$[^$]*\$\$", re.DOTALL)
_WRITES: Final = {
    ast.InsertStmt: "INSERT",
    ast.UpdateStmt: "UPDATE",
    ast.DeleteStmt: "DELETE",
    ast.MergeStmt: "MERGE",
}


def reads_clock(text: str) -> bool:
    """Whether Postgres might take ``text``, read as a date or time, to mean a moment relative to now."""
    lowered = text.lower()
    return any(word in lowered for word in _CLOCK_WORDS)


def require_select(sql: str) -> None:
    """Raise `CacheRefused` unless ``sql`` is one SELECT, VALUES or TABLE that neither writes nor locks."""
    try:
        statements = parse_sql(sql)
    except ParseError as error:
        raise CacheRefused(f"the SQL does not parse: {error.args[0]}") from error
    if len(statements) != 1:
        raise CacheRefused(f"a cache is one SELECT, this is {len(statements)} statements")
    statement = statements[0].stmt
    if not isinstance(statement, ast.SelectStmt):
        kind = _WRITES.get(type(statement), type(statement).__name__.removesuffix("Stmt").upper())
        raise CacheRefused(f"a cache is one SELECT, this is {kind}")
    _Shape()(statement)


def parameters(sql: str) -> int:
    """How many arguments ``sql`` takes: the greatest of its ``$1``, ``$2``, …; none where it does not parse."""
    try:
        found = [sql[token.start + 1 : token.end + 1] for token in scan(sql) if token.name == "PARAM"]
    except ParseError:
        return 0
    return max(map(int, found), default=0)


def literal_reads_clock(sql: str, location: int) -> bool:
    """Whether the date or time literal at byte ``location`` of ``sql`` may depend on when it is read."""
    token = _token_at(sql, location)
    if token is None:
        return True
    text = sql[token.start : token.end + 1]
    return _PLAIN_LITERAL.fullmatch(text) is None or reads_clock(text)


class _Shape(Visitor):
    """Raises at the first part of a SELECT that does more than read."""

    def visit(self, ancestors: Ancestor, node: ast.Node) -> None:  # noqa: ARG002
        kind = _WRITES.get(type(node))
        if kind is not None:
            raise CacheRefused(f"{kind} inside a query: a cache only reads")
        if isinstance(node, ast.SelectStmt) and node.intoClause is not None:
            raise CacheRefused("SELECT INTO writes a table: a cache only reads")
        if isinstance(node, ast.SelectStmt) and node.lockingClause:
            raise CacheRefused("FOR UPDATE and FOR SHARE lock rows: a cache only reads, take the clause out")


def _token_at(sql: str, location: int) -> Token | None:
    at = len(sql.encode()[:location].decode(errors="replace"))
    return next((token for token in scan(sql) if token.start == at and token.name == "SCONST"), None)
