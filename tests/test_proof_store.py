"""The proof's writers of a store cache know of each of their writes whether it happened, or that nobody can."""

from random import Random
from typing import Any

import hiredis
import pytest

from cluster.snapshots import Snapshot
from cluster.tokens import Ticket, TokenCodec
from scripts.proof import store
from scripts.proof.chronicle import Chronicle
from scripts.proof.history import UNKNOWN_XID, Era, Write
from scripts.proof.replies import Asked

FIRST, SECOND = 7, 8
CODEC = TokenCodec([b"a secret of the proof"])
UNCERTAIN = hiredis.ReplyError("WRITE_UNCERTAIN the server did not say")
REFUSED = hiredis.ReplyError("UNAVAILABLE try again")


MORE = 10**9
"""Versions are other numbers than transactions."""


class FakeNode:
    """Answers writes as told; knows one version of the writer's mark."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []
        self.incarnation = FIRST
        self.version = 0
        self.value: bytes | None = None
        self.xid = 100

    async def ask(self, commands: list[tuple[bytes, ...]]) -> list[Any]:
        (words,) = commands
        if words[0] == b"SNAP.GET":
            as_of = CODEC.encode(Snapshot(self.xid + 1, self.xid + 1), self.incarnation).encode()
            state = {b"state": b"FRESH", b"as_of": as_of}
            return [{b"value": self.value, b"version": self.version, **state}]
        outcome = self.outcomes.pop(0)
        if outcome in ("done", "done, unheard"):
            self.xid += 1
            assert words[4:6] == (b"IFVERSION", b"%d" % self.version)
            self.version, self.value = self.xid + MORE, words[3]
        if outcome == "done":
            return [
                {
                    b"token": CODEC.encode(Ticket(self.xid), self.incarnation).encode(),
                    b"version": self.version,
                }
            ]
        return [REFUSED if outcome == "refused" else UNCERTAIN]


class FakeDatabase:
    """Draws numbers, and knows the transaction of a version."""

    def __init__(self) -> None:
        self.number = 0
        self.answer = ""

    async def execute(self, _: bytes, arguments: tuple[int, ...] = ()) -> "FakeDatabase":
        self.number += not arguments
        self.answer = str(arguments[0] - MORE if arguments else self.number)
        return self

    async def fetchall(self) -> list[tuple[str]]:
        return [(self.answer,)]


class Stage:
    """A writer at the fake node, of which the chronicle keeps the history."""

    def __init__(self) -> None:
        self.node, self.database = FakeNode(), FakeDatabase()
        self.chronicle = Chronicle(lambda *_: None)
        self.chronicle._eras.append(Era(incarnation=FIRST, survivors=frozenset()))
        self.writer = store.StoreWriter(
            lambda: "", lambda: 0, CODEC, self.chronicle, number=0, rng=Random(1), pace_s=0.0
        )

    async def write(self, *outcomes: str) -> None:
        """Write as often, after a look at the mark where the version is not known."""
        self.node.outcomes += outcomes
        known = False
        for _ in outcomes:
            known = known or await self.writer._remember(self.database, self.node)  # type: ignore[arg-type]
            known = await self.writer._write(self.database, self.node)  # type: ignore[arg-type]
        await self.writer._remember(self.database, self.node)  # type: ignore[arg-type]

    @property
    def writes(self) -> list[Write]:
        """The history."""
        return list(self.chronicle.history.writes)


async def test_an_acknowledged_write_is_known() -> None:
    """By the transaction and the incarnation that its ticket names."""
    stage = Stage()
    await stage.write("done", "done")
    assert [(write.xid, write.incarnation, write.ambiguous) for write in stage.writes] == [
        (101, FIRST, False),
        (102, FIRST, False),
    ]
    assert all(write.acked_s for write in stage.writes)


async def test_what_a_connection_wrote_it_reads_back() -> None:
    """Without a token, and is judged as if it had given the ticket of its write."""
    stage = Stage()
    await stage.write("done", "done")
    tickets = [CODEC.encode(Ticket(xid), FIRST).encode() for xid in (101, 102)]
    read = list(stage.writer.record.rows())
    assert [(reply["asked"], reply["token"]) for reply in read] == [(Asked.ATLEAST, each) for each in tickets]


async def test_a_refused_write_has_not_happened() -> None:
    """Whatever error it was but one."""
    stage = Stage()
    await stage.write("refused", "done")
    assert [write.xid for write in stage.writes] == [101]


async def test_an_uncertain_write_that_happened_is_found_by_its_mark() -> None:
    """With its xid, though nobody was told."""
    stage = Stage()
    await stage.write("done", "done, unheard", "done")
    assert [(write.xid, write.acked_s is None) for write in stage.writes] == [
        (101, False),
        (102, True),
        (103, False),
    ]


async def test_an_uncertain_write_that_was_overtaken_has_not_happened() -> None:
    """It demanded a version of the mark that is no more."""
    stage = Stage()
    await stage.write("uncertain", "done")
    assert [write.xid for write in stage.writes] == [101]
    assert not stage.writer._doubtful


async def test_of_an_uncertain_write_before_a_crash_nobody_knows() -> None:
    """It may have been seen before the crash that lost it."""
    stage = Stage()
    await stage.write("uncertain")
    stage.node.incarnation = SECOND
    await stage.write("done")
    lost, after = sorted(stage.writes, key=lambda write: write.incarnation)
    assert (lost.xid, lost.incarnation, lost.ambiguous) == (UNKNOWN_XID, FIRST, True)
    assert (after.incarnation, after.ambiguous) == (SECOND, False)


@pytest.mark.parametrize(("survived", "era"), [(True, FIRST), (False, SECOND)])
async def test_an_uncertain_write_that_outlived_a_crash_belongs_to_its_incarnation(
    survived: bool, era: int
) -> None:
    """That of before the crash if it was there when the new one began, else the new one."""
    stage = Stage()
    await stage.write("done")
    stage.node.outcomes.append("done, unheard")
    await stage.writer._write(stage.database, stage.node)  # type: ignore[arg-type]
    (doubtful,) = stage.writer._doubtful
    stage.node.incarnation = SECOND
    survivors = frozenset({doubtful.nonce} if survived else ())
    stage.chronicle._eras.append(Era(incarnation=SECOND, survivors=survivors))
    assert await stage.writer._remember(stage.database, stage.node)  # type: ignore[arg-type]
    assert [(write.xid, write.incarnation) for write in stage.writes] == [(101, FIRST), (102, era)]
