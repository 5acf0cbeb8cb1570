"""PostgreSQL's own analysed form of a query, read from its node text. Pure.

Postgres writes the trees of its analyser as text (``pg_node_tree``, ``debug_print_rewritten``): names
are already resolved to numbers, operators and casts to the functions behind them, views expanded. The
text has the same grammar in every version; what differs are some labels, which are read here under the
names of PostgreSQL 16 and later. Text that does not follow the grammar is an error, never a guess.

Grammar (``src/backend/nodes/read.c``)::

    node  = "{" LABEL *(":" field value) "}"
    value = node | list | token | number "[" *byte "]"
    list  = "(" *value ")" | "(" ("i" | "o" | "x" | "b") *number ")"

``<>`` is null. A backslash takes the next character out of the grammar.
"""

import re
from collections.abc import Iterator
from typing import Final, TypeAlias

_TOKEN: Final = re.compile(r"[(){}]|(?:[^\s(){}\\]|\\.)+", re.DOTALL)
_NUMBERS: Final = ("i", "o", "x", "b")
_OLD_LABELS: Final = {
    "RTE": "RANGETBLENTRY",
    "COLLATE": "COLLATEEXPR",
    "CASE": "CASEEXPR",
    "WHEN": "CASEWHEN",
    "ARRAY": "ARRAYEXPR",
    "ROW": "ROWEXPR",
    "ROWCOMPARE": "ROWCOMPAREEXPR",
    "COALESCE": "COALESCEEXPR",
    "MINMAX": "MINMAXEXPR",
}
"""What PostgreSQL 14 and 15 call some nodes."""

Value: TypeAlias = "Node | list[Value] | str | None"


class NodeTextError(Exception):
    """The text does not follow the grammar, or a node lacks a field it must have."""


class Node:
    """One node: ``label`` in capitals, and its fields, read by what they must hold."""

    __slots__ = ("fields", "label")

    def __init__(self, label: str, fields: dict[str, Value]) -> None:
        self.label = label
        self.fields = fields

    def __repr__(self) -> str:
        return f"<{self.label} {' '.join(self.fields)}>"

    def __contains__(self, field: str) -> bool:
        return field in self.fields

    def node(self, field: str) -> "Node | None":
        """The node in ``field``, None where it is null."""
        value = self._get(field)
        if value is None or isinstance(value, Node):
            return value
        raise NodeTextError(f"{self.label}.{field} is not a node")

    def nodes(self, field: str) -> "list[Node]":
        """The list of nodes in ``field``, empty where it is null."""
        value = self._get(field)
        found = [] if value is None else value
        if isinstance(found, list) and all(isinstance(item, Node) for item in found):
            return [item for item in found if isinstance(item, Node)]
        raise NodeTextError(f"{self.label}.{field} is not a list of nodes")

    def item(self, field: str, index: int) -> "Node | None":
        """The node at ``index`` (from 0) of the list in ``field``, None where it is null."""
        value = self._get(field)
        if isinstance(value, list) and 0 <= index < len(value):
            found = value[index]
            if found is None or isinstance(found, Node):
                return found
        raise NodeTextError(f"{self.label}.{field} has no node {index}")

    def numbers(self, field: str) -> list[int]:
        """The list of numbers in ``field``, empty where it is null."""
        value = self._get(field)
        if value is None:
            return []
        if isinstance(value, list):
            return [_number(item, f"{self.label}.{field}") for item in value]
        raise NodeTextError(f"{self.label}.{field} is not a list")

    def number(self, field: str) -> int:
        """The number in ``field``."""
        return _number(self._get(field), f"{self.label}.{field}")

    def flag(self, field: str) -> bool:
        """Whether ``field`` is true; a field that this version of Postgres does not write is false."""
        value = self.fields.get(field, "false")
        if value not in ("true", "false"):
            raise NodeTextError(f"{self.label}.{field} is not a truth value")
        return value == "true"

    def text(self, field: str) -> str:
        """The text in ``field``, empty where it is null."""
        value = self._get(field)
        if value is None or isinstance(value, str):
            return _unescape(value or "")
        raise NodeTextError(f"{self.label}.{field} is not text")

    def texts(self, field: str) -> list[str]:
        """The list of texts in ``field``, empty where it is null."""
        value = self._get(field)
        if value is None:
            return []
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return [_unescape(item[1:-1]) for item in value if isinstance(item, str)]
        raise NodeTextError(f"{self.label}.{field} is not a list of texts")

    def children(self) -> "Iterator[Node]":
        """Every node directly below this one, lists opened."""
        pending: list[Value] = list(reversed(self.fields.values()))
        while pending:
            value = pending.pop()
            if isinstance(value, Node):
                yield value
            elif isinstance(value, list):
                pending.extend(reversed(value))

    def walk(self) -> "Iterator[Node]":
        """This node and every node below it, in no particular order."""
        pending = [self]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(node.children())

    def _get(self, field: str) -> Value:
        try:
            return self.fields[field]
        except KeyError:
            raise NodeTextError(f"{self.label} has no {field}") from None


def read(text: str) -> list[Node]:
    """The nodes in ``text``: one node, or a list of them. Raises `NodeTextError`."""
    tokens = _Tokens(text)
    try:
        value = _value(tokens)
    except RecursionError:
        raise NodeTextError("the query is nested too deeply") from None
    if tokens.peek() is not None:
        raise NodeTextError("text follows the last node")
    found = value if isinstance(value, list) else [value]
    nodes = [item for item in found if isinstance(item, Node)]
    if len(nodes) != len(found):
        raise NodeTextError("not a list of nodes")
    return nodes


class _Tokens:
    """The tokens of a text, with one token of look-ahead."""

    def __init__(self, text: str) -> None:
        self._found = _TOKEN.findall(text)
        self._at = 0
        if not _TOKEN.sub("", text + "\n").isspace():
            raise NodeTextError("a character that belongs to no token")

    def peek(self) -> str | None:
        return self._found[self._at] if self._at < len(self._found) else None

    def take(self) -> str:
        token = self.peek()
        if token is None:
            raise NodeTextError("the text ends inside a node")
        self._at += 1
        return token


def _value(tokens: _Tokens) -> Value:
    first = tokens.take()
    if first == "{":
        return _node(tokens)
    if first == "(":
        return _list(tokens)
    if first in (")", "}"):
        raise NodeTextError(f"{first!r} where a value belongs")
    return None if first == "<>" else first


def _node(tokens: _Tokens) -> Node:
    label = tokens.take()
    fields: dict[str, Value] = {}
    while (token := tokens.take()) != "}":
        if not token.startswith(":") or len(token) == 1:
            raise NodeTextError(f"{token!r} where a field of {label} belongs")
        fields[token[1:]] = _value(tokens)
        if tokens.peek() == "[":
            _skip_bytes(tokens)
    return Node(_OLD_LABELS.get(label, label), fields)


def _list(tokens: _Tokens) -> list[Value]:
    if tokens.peek() in _NUMBERS:
        tokens.take()
    items: list[Value] = []
    while tokens.peek() != ")":
        items.append(_value(tokens))
    tokens.take()
    return items


def _skip_bytes(tokens: _Tokens) -> None:
    while tokens.take() != "]":
        pass


def _number(value: Value, where: str) -> int:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass
    raise NodeTextError(f"{where} is not a number")


def _unescape(text: str) -> str:
    if text == '""':
        return ""
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
