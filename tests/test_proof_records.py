"""What the proof keeps: the record of replies, what sessions were shown, and evidence that can be judged again."""

from pathlib import Path

import msgpack
import pytest

from cluster.snapshots import Snapshot
from cluster.tokens import TokenCodec
from scripts.proof.caches import Cache
from scripts.proof.evidence import Evidence, evidence
from scripts.proof.history import Era, History, LogRow, State, Write
from scripts.proof.judge import KINDS, judge
from scripts.proof.replies import Asked, Replies
from scripts.proof.sessions import Sessions

SECRET = b"a secret of the proof"
CODEC = TokenCodec([SECRET])
CACHE = Cache(
    name="row", single=True, tables=("t",), truth=lambda state, key: state.get("t", key), max_staleness_s=1.0
)
CACHES = {CACHE.name: CACHE}
XIDS = range(10, 30)


def token(snapshot: str) -> bytes:
    """The token of a snapshot."""
    return CODEC.encode(Snapshot.parse(snapshot), 7).encode()


def record(*answers: dict[str, object]) -> Replies:
    """Replies of row "a", all sent at second 100."""
    replies = Replies()
    for each in answers:
        given = {"key": b"row:a", "asked": Asked.BOUNDED, "stale": True, "sent_s": 100.0, "received_s": 100.1}
        replies.add(**{**given, **each})  # type: ignore[arg-type]
    return replies


def history() -> History:
    """Each transaction sets "a" to its xid, and another table to something; a second apart."""
    writes = [
        Write(
            nonce=xid,
            xid=xid,
            incarnation=7,
            rows=(LogRow(10 * xid, "t", "a", {"n": xid}), LogRow(10 * xid + 1, "other", "b", {"n": 0})),
            sent_s=xid - 0.5,
            acked_s=float(xid),
        )
        for xid in XIDS
    ]
    return History(eras=[Era(incarnation=7, survivors=frozenset())], writes=writes)


def packed(n: int) -> bytes:
    """A value."""
    return bytes(msgpack.packb({"n": n}))


def test_a_record_goes_from_one_process_to_another(tmp_path: Path) -> None:
    """Every column, every text once, what was no answer, and where answers came from."""
    replies = record(
        {"value": packed(10), "as_of": token("11:11:"), "session": 3},
        {"value": None, "as_of": token("10:10:"), "asked": Asked.EXACT, "token": token("10:10:")},
        {"value": packed(10), "as_of": token("11:11:")},
    )
    replies.errors["UNAVAILABLE"] += 2
    replies.sources[b"local"] += 3
    replies.dump(tmp_path / "record")
    loaded = Replies.load(tmp_path / "record")
    assert list(loaded.rows()) == list(replies.rows())
    assert (loaded.errors, loaded.sources) == (replies.errors, replies.sources)
    assert len(loaded.values) == 3  # none, the empty one, and 10


@pytest.mark.parametrize(
    ("kind", "answers"),
    [
        ("wrong", [{"value": packed(14), "as_of": token("21:21:")}]),
        ("wrong", [{"value": packed(22), "as_of": token("24:24:"), "received_s": 22.0}]),
        ("wrong", [{"value": packed(20), "as_of": token("12:22:12")}, {"value": packed(20), "as_of": token("21:21:")}]),
        ("too_old", [{"value": packed(20), "as_of": token("21:21:"), "stale": False}]),
        ("token_violations", [{"value": packed(20), "as_of": token("21:21:"), "asked": Asked.STRONG}]),
        (
            "token_violations",
            [{"value": packed(20), "as_of": token("21:21:"), "asked": Asked.ATLEAST, "token": token("23:23:")}],
        ),
        (
            "went_back",
            [
                {"value": packed(24), "as_of": token("25:25:"), "session": 1, "sent_s": 99.0},
                {"value": packed(20), "as_of": token("21:21:"), "session": 1},
            ],
        ),
    ],
)  # fmt: skip
def test_evidence_shows_again_what_was_wrong(
    tmp_path: Path, kind: str, answers: list[dict[str, object]]
) -> None:
    """And holds little else: neither right replies, nor other tables, nor what came long before."""
    right = [{"value": packed(xid), "as_of": token(f"{xid + 1}:{xid + 1}:")} for xid in XIDS]
    replies = record(*right, *answers)
    verdict = judge(CACHES, history(), replies, CODEC)
    assert verdict.counts[kind] == 1
    evidence(CACHES, history(), replies, verdict, secret=SECRET, about={"seed": 1}).write(tmp_path / "kept")
    kept = Evidence.read(tmp_path / "kept")
    again = judge(kept.caches(CACHES), kept.history, kept.replies, kept.codec)
    assert {name for name in KINDS if again.counts[name]} == {kind}
    assert {row.table for write in kept.history.writes for row in write.rows} == {"t"}
    contradiction = kind == "wrong" and len(answers) > 1  # which takes all the other snapshots to show
    assert contradiction or len(kept.history.writes) < len(XIDS)


def test_evidence_after_a_crash_needs_no_earlier_incarnation(tmp_path: Path) -> None:
    """What survived is part of the one transaction that stands for all before."""
    before = history()
    eras = [*before.eras, Era(incarnation=8, survivors=frozenset({10, 11}))]
    after = Write(
        nonce=90, xid=12, incarnation=8, rows=(LogRow(900, "t", "a", {"n": 90}),), sent_s=50.0, acked_s=51.0
    )
    crashed = History(eras=eras, writes=[*before.writes, after])
    lost = CODEC.encode(Snapshot.parse("12:12:"), 8).encode()
    replies = record({"value": packed(29), "as_of": lost})
    verdict = judge(CACHES, crashed, replies, CODEC)
    assert "{'n': 11}" in verdict.violations[0].words
    evidence(CACHES, crashed, replies, verdict, secret=SECRET, about={}).write(tmp_path / "kept")
    kept = Evidence.read(tmp_path / "kept")
    assert (
        "{'n': 11}" in judge(kept.caches(CACHES), kept.history, kept.replies, kept.codec).violations[0].words
    )


def test_a_state_is_made_again_from_its_entries() -> None:
    """Rows that are there, and rows that are gone."""
    state, copy = State(), State()
    state.apply([LogRow(1, "t", "a", {"n": 1}), LogRow(2, "t", "b", {"n": 2}), LogRow(3, "t", "a", None)])
    copy.apply(state.entries())
    assert [copy.get("t", key) for key in "ab"] == [None, {"n": 2}]
    assert copy.rows("t") == [{"n": 2}]


def test_records_are_put_together() -> None:
    """With numbers of its own for every text."""
    first = record({"value": packed(10), "as_of": token("11:11:")})
    second = record(
        {"value": packed(20), "as_of": token("21:21:")}, {"value": None, "as_of": token("11:11:")}
    )
    expected = [*first.rows(), *second.rows()]
    first.extend(second)
    assert list(first.rows()) == expected


def test_a_session_is_shown_more_and_more() -> None:
    """Rounds are compared, not replies; and the contradiction is named."""
    sessions = Sessions()
    assert sessions.contradicts(1, place=5, sent_s=1.0, reply=0) is None
    assert sessions.contradicts(1, place=3, sent_s=1.0, reply=1) is None
    assert sessions.contradicts(1, place=4, sent_s=2.0, reply=2) == 0
    assert sessions.contradicts(2, place=4, sent_s=2.0, reply=3) is None
    assert sessions.contradicts(1, place=6, sent_s=3.0, reply=4) is None
