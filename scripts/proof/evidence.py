"""The smallest history that still shows what is wrong: kept as lines of JSON, and judged again from there.

Kept are the replies that were charged and those they contradict, the transactions that their snapshots may or
may not see, as far as their caches look at the rows, and all before those as one transaction. A snapshot that
is none can only be told by the others: then a reply for each of these is kept, too.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgpack

from cluster.snapshots import Snapshot
from cluster.tokens import TokenCodec
from scripts.proof.caches import Cache
from scripts.proof.chain import chain
from scripts.proof.history import Era, History, LogRow, State, Write
from scripts.proof.judge import Verdict
from scripts.proof.naming import Named, named
from scripts.proof.replies import Asked, Replies

_BEFORE: Final = 1
"""The xid of what stands for everything earlier: lower than any that Postgres gives out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """``about`` says where it comes from; ``secret`` signed the tokens, of a database that is gone.

    ``max_staleness_s`` is that of each cache.
    """

    about: Mapping[str, Any]
    secret: str
    max_staleness_s: Mapping[str, float]
    history: History
    replies: Replies

    @property
    def codec(self) -> TokenCodec:
        """What reads the tokens."""
        return TokenCodec([self.secret.encode()])

    def caches(self, known: Mapping[str, Cache]) -> dict[str, Cache]:
        """Those of ``known``, as they were."""
        return {
            name: replace(known[name], max_staleness_s=allowed_s)
            for name, allowed_s in self.max_staleness_s.items()
            if name in known
        }

    def write(self, file: Path) -> None:
        """Keep it."""
        with file.open("w") as lines:
            for line in self._lines():
                lines.write(json.dumps(line) + "\n")

    @classmethod
    def read(cls, file: Path) -> "Evidence":
        """What `write` kept."""
        found: dict[str, list[dict[str, Any]]] = {"proof": [], "era": [], "write": [], "reply": []}
        for line in file.read_text().splitlines():
            parsed = json.loads(line)
            found[parsed.pop("line")].append(parsed)
        ((head,), replies) = found["proof"], Replies()
        for each in found["reply"]:
            replies.add(**_read_reply(each))
        eras = tuple(Era(incarnation=each["incarnation"], survivors=frozenset()) for each in found["era"])
        writes = tuple(
            Write(**{**each, "rows": tuple(LogRow(*row) for row in each["rows"])}) for each in found["write"]
        )
        history = History(eras=eras, writes=writes)
        return cls(**head, history=history, replies=replies)

    def _lines(self) -> Iterator[dict[str, Any]]:
        head = {"about": self.about, "secret": self.secret, "max_staleness_s": dict(self.max_staleness_s)}
        yield {"line": "proof", **head}
        for era in self.history.eras:
            yield {"line": "era", "incarnation": era.incarnation}
        for write in self.history.writes:
            yield {"line": "write", **asdict(write), "rows": [[*asdict(row).values()] for row in write.rows]}
        for reply in self.replies.rows():
            yield {"line": "reply", **_written_reply(reply, self.codec)}


def evidence(
    caches: Mapping[str, Cache],
    history: History,
    replies: Replies,
    verdict: Verdict,
    *,
    secret: bytes,
    about: Mapping[str, Any],
) -> Evidence:
    """What ``verdict`` rests on."""
    charged = {violation.reply for violation in verdict.violations}
    charged |= {violation.against for violation in verdict.violations if violation.against is not None}
    misfits = _misfits(history, replies, TokenCodec([secret]))
    kept = Replies()
    for at, reply in enumerate(replies.rows()):
        if at in charged or reply["as_of"] in misfits:
            misfits.discard(reply["as_of"])
            kept.add(**reply)
    found = Evidence(
        about=about,
        secret=secret.decode(),
        max_staleness_s={name: cache.max_staleness_s for name, cache in caches.items()},
        history=history,
        replies=kept,
    )
    tables = {table for key in kept.keys for table in _tables(key or b"", caches)}
    last_s = max((reply["received_s"] for reply in kept.rows()), default=0.0)
    return replace(found, history=_smallest(history, _names(kept, found.codec), tables, last_s))


def _misfits(history: History, replies: Replies, codec: TokenCodec) -> set[bytes]:
    """The tokens of every incarnation in which a reply names a snapshot that contradicts others."""
    names = {token: named(token or b"", codec) for token in replies.tokens}
    found = set()
    for era in history.eras:
        there = {
            token: each.position
            for token, each in names.items()
            if isinstance(each, Named) and each.incarnation == era.incarnation
        }
        snapshots = [position for position in there.values() if isinstance(position, Snapshot)]
        committed = [write.xid for write in history.during(era) if not write.ambiguous]
        if chain(snapshots, committed).misfits:
            found |= {token for token in there if token}
    return found


def _names(replies: Replies, codec: TokenCodec) -> list[Named]:
    names = (named(token or b"", codec) for token in replies.tokens)
    return [each for each in names if isinstance(each, Named)]


def _smallest(history: History, named: Sequence[Named], tables: set[str], last_s: float) -> History:
    writes: list[Write] = []
    for era in history.eras:
        snapshots = [
            each.position
            for each in named
            if each.incarnation == era.incarnation and isinstance(each.position, Snapshot)
        ]
        during = history.during(era)
        oldest = min((snapshot.xmin for snapshot in snapshots), default=0)
        newest = max((snapshot.xmax for snapshot in snapshots), default=0)
        settled = [write for write in during if write.xid < oldest and not write.ambiguous]
        writes.append(_folded(era, [*history.before(era), *settled], tables))
        writes += (
            replace(write, rows=tuple(row for row in write.rows if row.table in tables))
            for write in during
            if write.ambiguous
            or (write.xid >= oldest and (write.xid < newest or (write.acked_s or last_s) < last_s))
        )
    return History(
        eras=[Era(incarnation=era.incarnation, survivors=frozenset()) for era in history.eras], writes=writes
    )


def _folded(era: Era, writes: Iterable[Write], tables: set[str]) -> Write:
    state = State()
    rows = (row for write in writes for row in write.rows if row.table in tables)
    state.apply(sorted(rows, key=lambda row: row.seq))
    return Write(
        nonce=0,
        xid=_BEFORE,
        incarnation=era.incarnation,
        rows=tuple(state.entries()),
        sent_s=0.0,
        acked_s=None,
    )


def _tables(key: bytes, caches: Mapping[str, Cache]) -> tuple[str, ...]:
    cache = caches.get(key.decode().partition(":")[0])
    return cache.tables if cache is not None else ()


def _written_reply(reply: Mapping[str, Any], codec: TokenCodec) -> dict[str, Any]:
    value = reply["value"]
    return {
        **reply,
        "key": reply["key"].decode(),
        "value": None if value is None else value.hex(),
        "as_of": reply["as_of"].decode("latin-1"),
        "token": reply["token"].decode("latin-1"),
        "asked": Asked(reply["asked"]).name,
        "says": _shown(value),
        "of": str(named(reply["as_of"], codec)),
    }


def _read_reply(line: Mapping[str, Any]) -> dict[str, Any]:
    value = line["value"]
    return {
        **{name: given for name, given in line.items() if name not in ("says", "of")},
        "key": line["key"].encode(),
        "value": None if value is None else bytes.fromhex(value),
        "as_of": line["as_of"].encode("latin-1"),
        "token": line["token"].encode("latin-1"),
        "asked": Asked[line["asked"]],
    }


def _shown(value: bytes | None) -> object:
    if value is None:
        return None
    try:
        return msgpack.unpackb(value)
    except ValueError:
        return "no msgpack"
