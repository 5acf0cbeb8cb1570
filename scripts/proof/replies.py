"""The record of replies: columns of numbers, 38 bytes a reply, and every text once. A run is bounded by its length.

Pure, but for `Replies.dump` and `Replies.load`, by which one process hands its record to another.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgpack


class Asked(IntEnum):
    """The consistency that a read asked for."""

    BOUNDED = 0
    STRONG = 1
    ATLEAST = 2
    EXACT = 3


NO_TOKEN: Final = 0
NO_SESSION: Final = 0

_COLUMNS: Final = {
    "key": "I",
    "value": "I",
    "as_of": "I",
    "asked": "B",
    "token": "I",
    "stale": "B",
    "session": "I",
    "sent_s": "d",
    "received_s": "d",
}


class Failure(NamedTuple):
    """What was asked of the node on ``port`` at monotonic ``sent_s`` brought no answer, but ``code``."""

    port: int
    code: str
    sent_s: float
    received_s: float


class Texts:
    """Each text once, by a number; the first is the empty one."""

    def __init__(self) -> None:
        self._numbers: dict[bytes | None, int] = {b"": 0}

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[bytes | None]:
        return iter(self._numbers)

    def number(self, text: bytes | None) -> int:
        """The number of ``text``."""
        return self._numbers.setdefault(text, len(self._numbers))


@dataclass(slots=True)
class Replies:
    """Row n of every column is one reply. Times are monotonic seconds, those of a session in order.

    A ``session`` is a client that always asks for at least the newest snapshot it was shown; readers that
    carry nothing along have none. ``errors`` counts by code what was no answer, ``failures`` are the same one by
    one, ``sources`` counts where answers came from. ``waits`` has for each port and whole second of the monotonic
    clock the longest time in which what was asked then was answered, be it with an error.
    """

    keys: Texts = field(default_factory=Texts)
    values: Texts = field(default_factory=Texts)
    tokens: Texts = field(default_factory=Texts)
    columns: Mapping[str, "array[Any]"] = field(
        default_factory=lambda: {name: array(code) for name, code in _COLUMNS.items()}
    )
    errors: Counter[str] = field(default_factory=Counter)
    sources: Counter[bytes] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    waits: dict[tuple[int, int], float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns["key"])

    def add(
        self,
        *,
        key: bytes,
        value: bytes | None,
        as_of: bytes,
        asked: Asked,
        token: bytes = b"",
        stale: bool = False,
        session: int = NO_SESSION,
        sent_s: float,
        received_s: float,
    ) -> None:
        """Enter a reply."""
        columns = self.columns
        columns["key"].append(self.keys.number(key))
        columns["value"].append(self.values.number(value))
        columns["as_of"].append(self.tokens.number(as_of))
        columns["asked"].append(asked)
        columns["token"].append(self.tokens.number(token))
        columns["stale"].append(stale)
        columns["session"].append(session)
        columns["sent_s"].append(sent_s)
        columns["received_s"].append(received_s)

    def failed(self, port: int, code: str, sent_s: float, received_s: float) -> None:
        """Enter what was no answer."""
        self.errors[code] += 1
        self.failures.append(Failure(port, code, sent_s, received_s))

    def waited(self, port: int, sent_s: float, received_s: float) -> None:
        """What was asked of ``port`` at ``sent_s`` has been answered, at last at ``received_s``."""
        when, wait_s = (port, int(sent_s)), received_s - sent_s
        self.waits[when] = max(wait_s, self.waits.get(when, 0.0))

    def extend(self, other: "Replies") -> None:
        """Enter all replies of ``other``."""
        for reply in other.rows():
            self.add(**reply)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every reply as `add` took it."""
        keys, values, tokens = list(self.keys), list(self.values), list(self.tokens)
        for row in zip(*self.columns.values(), strict=True):
            reply = dict(zip(self.columns, row, strict=True))
            reply["key"], reply["value"] = keys[reply["key"]], values[reply["value"]]
            reply["as_of"], reply["token"] = tokens[reply["as_of"]], tokens[reply["token"]]
            yield reply

    def dump(self, file: Path) -> None:
        """Write the record for `load`, on the same machine."""
        packed = {
            "keys": list(self.keys),
            "values": list(self.values),
            "tokens": list(self.tokens),
            "columns": {name: column.tobytes() for name, column in self.columns.items()},
            "errors": dict(self.errors),
            "sources": dict(self.sources),
            "failures": self.failures,
            "waits": [(*when, wait_s) for when, wait_s in self.waits.items()],
        }
        file.write_bytes(msgpack.packb(packed))

    @classmethod
    def load(cls, file: Path) -> "Replies":
        """What `dump` wrote."""
        packed = msgpack.unpackb(file.read_bytes(), strict_map_key=False)
        record = cls(errors=Counter(packed["errors"]), sources=Counter(packed["sources"]))
        record.failures += [Failure(*failure) for failure in packed["failures"]]
        record.waits.update({(port, second): wait_s for port, second, wait_s in packed["waits"]})
        for texts, name in ((record.keys, "keys"), (record.values, "values"), (record.tokens, "tokens")):
            for text in packed[name]:
                texts.number(text)
        for name, column in record.columns.items():
            column.frombytes(packed["columns"][name])
        return record
