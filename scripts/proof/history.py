"""What the database went through, as whoever wrote to it knows: transactions, and incarnations. Pure.

A row of a table is known by the table's name and its key's text. Within one row, ``seq`` is the order of
writing: it was drawn under the row's lock, in the transaction that wrote.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

Fields = dict[str, Any]

UNKNOWN_XID: Final = 0
"""Of a transaction that may have committed, and whose id its writer was never told: any snapshot may see it."""

_NEVER: Final = -1


@dataclass(frozen=True, slots=True)
class LogRow:
    """One row written: ``value`` is all of it, None where it is gone; without ``key``, all rows are gone."""

    seq: int
    table: str
    key: str | None
    value: Fields | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """A transaction that committed in ``incarnation``, or may have: then it is ``ambiguous``.

    ``sent_s`` and ``acked_s`` are the monotonic times at which COMMIT was sent and its success was known;
    None where it was learnt otherwise. ``nonce`` is its own across incarnations, where xids are not.
    """

    nonce: int
    xid: int
    incarnation: int
    rows: tuple[LogRow, ...]
    sent_s: float
    acked_s: float | None
    ambiguous: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Era:
    """One incarnation: which transactions of earlier ones the database still had, by nonce."""

    incarnation: int
    survivors: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Every incarnation in order, and every transaction that may have committed."""

    eras: Sequence[Era]
    writes: Sequence[Write]

    def before(self, era: Era) -> list[Write]:
        """What the database held when ``era`` began."""
        return [
            write
            for write in self.writes
            if write.nonce in era.survivors and write.incarnation != era.incarnation
        ]

    def during(self, era: Era) -> list[Write]:
        """What was committed in ``era``, or may have been."""
        return [write for write in self.writes if write.incarnation == era.incarnation]


class State:
    """The rows of every table after some transactions, whichever way these are given.

    ``changes`` counts what happened to each table.
    """

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, LogRow]] = {}
        self._emptied: dict[str, int] = {}
        self.changes: dict[str, int] = {}

    def copy(self) -> "State":
        """An independent one."""
        other = State()
        other._tables = {table: dict(rows) for table, rows in self._tables.items()}
        other._emptied = dict(self._emptied)
        other.changes = dict(self.changes)
        return other

    def apply(self, rows: Iterable[LogRow]) -> None:
        """Enter what a transaction wrote."""
        for row in rows:
            self.changes[row.table] = self.changes.get(row.table, 0) + 1
            if row.key is None:
                self._empty(row)
            elif row.seq > max(self.seq(row.table, row.key), self._emptied.get(row.table, _NEVER)):
                self._tables.setdefault(row.table, {})[row.key] = row

    def get(self, table: str, key: str) -> Fields | None:
        """A row, None where there is none."""
        row = self._tables.get(table, {}).get(key)
        return row.value if row is not None else None

    def seq(self, table: str, key: str) -> int:
        """When the row was written last, or taken away."""
        row = self._tables.get(table, {}).get(key)
        return row.seq if row is not None else _NEVER

    def rows(self, table: str) -> list[Fields]:
        """The rows of ``table``, in no order."""
        return [row.value for row in self._tables.get(table, {}).values() if row.value is not None]

    def entries(self) -> list[LogRow]:
        """What makes an empty state this one."""
        return sorted(
            (row for rows in self._tables.values() for row in rows.values()), key=lambda row: row.seq
        )

    def _empty(self, event: LogRow) -> None:
        rows = self._tables.get(event.table, {})
        self._tables[event.table] = {key: row for key, row in rows.items() if row.seq > event.seq}
        self._emptied[event.table] = max(event.seq, self._emptied.get(event.table, _NEVER))
