"""The proof's judge: it lets nothing pass that is not so, and charges nothing that is."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations, pairwise

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.snapshots import Snapshot
from cluster.tokens import Ticket, TokenCodec
from scripts.proof.caches import Cache
from scripts.proof.chain import chain
from scripts.proof.history import Era, History, LogRow, State, Write
from scripts.proof.judge import Verdict, judge
from scripts.proof.replies import Asked, Replies

FIRST, SECOND = 2**63 + 7, 5
CODEC = TokenCodec([b"a secret of the proof"])
ROW = Cache(
    name="row",
    sql="",
    single=True,
    tables=("t",),
    truth=lambda state, key: state.get("t", key),
    max_staleness_s=1.0,
)
TOTAL = Cache(
    name="total", sql="", tables=("t",), truth=lambda state, _: sum(row["n"] for row in state.rows("t"))
)
CACHES = {cache.name: cache for cache in (ROW, TOTAL)}


def write(
    xid: int, rows: dict[str, int | None], *, acked_s: float | None, seq: int | None = None, **more: object
) -> Write:
    """Transaction ``xid``, which wrote ``rows`` of the one table; its commit took half a second."""
    entered = tuple(
        LogRow(at, "t", key, None if n is None else {"n": n})
        for at, (key, n) in enumerate(rows.items(), 10 * (seq or xid))
    )
    given = {"nonce": xid, "incarnation": FIRST, "sent_s": (acked_s or 0.0) - 0.5, **more}
    return Write(xid=xid, rows=entered, acked_s=acked_s, **given)  # type: ignore[arg-type]


def token(snapshot: str, incarnation: int = FIRST) -> bytes:
    """The token of a snapshot."""
    return CODEC.encode(Snapshot.parse(snapshot), incarnation).encode()


def ticket(xid: int, incarnation: int = FIRST) -> bytes:
    """The token that demands to see ``xid``."""
    return CODEC.encode(Ticket(xid), incarnation).encode()


def answer(
    snapshot: str,
    value: object,
    key: str = "row:a",
    *,
    at_s: float = 100.0,
    incarnation: int = FIRST,
    **more: object,
) -> dict[str, object]:
    """A reply to a plain read, STALE where nothing else is said, received a tenth of a second after ``at_s``."""
    given = {
        "as_of": token(snapshot, incarnation),
        "asked": Asked.BOUNDED,
        "stale": True,
        "sent_s": at_s,
        "received_s": at_s + 0.1,
    }
    packed = None if value is None else msgpack.packb(value)
    return {"key": key.encode(), "value": packed, **given, **more}


def judged(writes: Iterable[Write], *answers: dict[str, object], eras: Iterable[Era] = ()) -> Verdict:
    """The verdict on ``answers`` after ``writes``."""
    replies = Replies()
    for each in answers:
        replies.add(**each)  # type: ignore[arg-type]
    history = History(eras=(Era(incarnation=FIRST, survivors=frozenset()), *eras), writes=tuple(writes))
    return judge(CACHES, history, replies, CODEC)


def found(verdict: Verdict) -> dict[str, int]:
    """What the verdict charges."""
    return {kind: count for kind, count in verdict.counts.items() if count}


WRITES = [
    write(10, {"a": 1}, acked_s=1.0),
    write(11, {"a": 2, "b": 5}, acked_s=2.0),
    write(12, {"b": None}, acked_s=3.0),
]


@pytest.mark.parametrize(
    ("snapshot", "key", "value"),
    [
        ("10:10:", "row:a", None),
        ("11:11:", "row:a", {"n": 1}),
        ("12:12:", "row:a", {"n": 2}),
        ("11:13:11", "row:a", {"n": 1}),
        ("12:12:", "row:b", {"n": 5}),
        ("13:13:", "row:b", None),
        ("13:13:", "total", 2),
        ("12:14:12", "total", 7),
    ],
)
def test_what_is_true_at_its_snapshot_passes(snapshot: str, key: str, value: object) -> None:
    """A value is held against the rows that exactly this snapshot sees."""
    assert judged(WRITES, answer(snapshot, value, key, at_s=3.0)).clean


@pytest.mark.parametrize(
    ("snapshot", "key", "value"),
    [
        ("10:10:", "row:a", {"n": 1}),
        ("11:11:", "row:a", {"n": 2}),
        ("11:13:11", "row:a", {"n": 2}),
        ("13:13:", "row:b", {"n": 5}),
        ("12:12:", "row:a", None),
        ("13:13:", "total", 7),
    ],
)
def test_a_wrong_value_is_found(snapshot: str, key: str, value: object) -> None:
    """Too early, too late, or of a transaction that was still running."""
    verdict = judged(WRITES, answer(snapshot, value, key, at_s=3.0))
    assert found(verdict) == {"wrong": 1}
    assert "the database held" in verdict.violations[0].words


def test_bytes_that_are_no_value_are_wrong() -> None:
    """What cannot be decoded equals nothing."""
    given = answer("11:11:", {"n": 1}, at_s=1.0)
    assert found(judged(WRITES, {**given, "value": b"\xc1"})) == {"wrong": 1}


def test_a_reply_of_a_cache_that_nobody_knows_is_wrong() -> None:
    """There is no truth that it could be."""
    assert found(judged(WRITES, answer("11:11:", {"n": 1}, "other:a", at_s=1.0))) == {"wrong": 1}


@pytest.mark.parametrize(
    "as_of",
    [b"", b"gibberish", token("11:11:")[:-1], ticket(10), token("11:11:", SECOND)],
    ids=["none", "gibberish", "cut off", "a ticket", "another incarnation"],
)
def test_a_name_that_names_no_snapshot_is_wrong(as_of: bytes) -> None:
    """Every reply says as of which snapshot of the database it is."""
    assert found(judged(WRITES, answer("11:11:", {"n": 1}, as_of=as_of))) == {"wrong": 1}


def test_a_snapshot_that_contradicts_the_others_is_wrong() -> None:
    """Of two snapshots, one sees all that the other sees."""
    true = answer("10:12:10", {"n": 2}, at_s=3.0)
    verdict = judged(WRITES, true, answer("11:11:", {"n": 1}, at_s=3.0))
    assert found(verdict) == {"wrong": 1}


def test_a_snapshot_of_the_future_is_wrong() -> None:
    """Before COMMIT was sent, no snapshot can have seen it."""
    early = answer("12:12:", {"n": 2}, received_s=1.4)
    assert found(judged(WRITES, early)) == {"wrong": 1}
    assert judged(WRITES, {**early, "received_s": 1.6}).clean


def test_a_token_that_was_asked_for_must_be_seen() -> None:
    """At least a snapshot, or at least a transaction."""
    for wanted in (token("12:12:"), ticket(11)):
        asked = {"asked": Asked.ATLEAST, "token": wanted}
        assert found(judged(WRITES, answer("11:11:", {"n": 1}, **asked))) == {"token_violations": 1}
        assert judged(WRITES, answer("12:12:", {"n": 2}, **asked)).clean
        assert judged(WRITES, answer("13:13:", {"n": 2}, **asked)).clean


def test_a_running_transaction_is_not_seen() -> None:
    """A ticket is not fulfilled by a later xmax alone."""
    asked = {"asked": Asked.ATLEAST, "token": ticket(11)}
    assert found(judged(WRITES, answer("11:13:11", {"n": 1}, **asked))) == {"token_violations": 1}


def test_an_exact_read_is_answered_at_its_snapshot() -> None:
    """A newer one will not do, however true."""
    asked = {"asked": Asked.EXACT, "token": token("11:11:")}
    assert judged(WRITES, answer("11:11:", {"n": 1}, **asked)).clean
    assert found(judged(WRITES, answer("12:12:", {"n": 2}, **asked))) == {"token_violations": 1}


def test_a_token_of_another_incarnation_is_never_fulfilled() -> None:
    """It must be refused."""
    asked = {"asked": Asked.ATLEAST, "token": ticket(10, SECOND)}
    assert found(judged(WRITES, answer("13:13:", {"n": 2}, **asked))) == {"token_violations": 1}


def test_a_strong_read_sees_what_was_acknowledged_before_it_was_sent() -> None:
    """And need not see what was acknowledged later."""
    asked = {"asked": Asked.STRONG}
    assert judged(WRITES, answer("11:11:", {"n": 1}, at_s=1.9, **asked)).clean
    late = answer("11:11:", {"n": 1}, at_s=2.1, **asked)
    assert found(judged(WRITES, late)) == {"token_violations": 1}


def test_a_fresh_reply_sees_what_was_acknowledged_max_staleness_before() -> None:
    """A STALE one says itself that it is old."""
    assert judged(WRITES, answer("11:11:", {"n": 1}, at_s=2.9, stale=False)).clean
    late = answer("11:11:", {"n": 1}, at_s=3.1, stale=False)
    assert found(judged(WRITES, late)) == {"too_old": 1}
    assert judged(WRITES, {**late, "stale": True}).clean


def test_a_session_never_goes_back() -> None:
    """What a round is answered with may come in any order; the next must not see less than the newest of it."""
    there = [answer("12:12:", {"n": 2}, at_s=2.0, session=1), answer("11:11:", {"n": 1}, at_s=2.0, session=1)]
    assert judged(WRITES, *there).clean
    back = answer("11:11:", {"n": 1}, at_s=2.5, session=1)
    assert found(judged(WRITES, *there, back)) == {"went_back": 1}
    assert judged(WRITES, *there, {**back, "session": 2}).clean
    assert judged(WRITES, *there, {**back, "session": 0}).clean


def test_staleness_is_counted_from_the_first_commit_that_a_reply_misses() -> None:
    """Until the reply came; a reply that misses none is not stale."""
    verdict = judged(WRITES, answer("11:11:", {"n": 1}, at_s=2.5), answer("13:13:", {"n": 2}, at_s=50.0))
    assert verdict.clean
    assert verdict.staleness.at(0.5) == 0.0
    assert verdict.staleness.at(1.0) == pytest.approx(0.6, abs=1e-3)


# -- crashes ---------------------------------------------------------------------------------------

AFTERWARDS = Era(incarnation=SECOND, survivors=frozenset({10}))
REUSED = write(11, {"a": 7}, acked_s=9.0, seq=20, nonce=77, incarnation=SECOND)


def test_what_a_crash_lost_is_true_before_it_and_not_after() -> None:
    """A commit that was acknowledged and lost belongs to its incarnation alone; its xid may come again."""
    verdict = judged(
        [*WRITES[:2], REUSED],
        answer("12:12:", {"n": 2}, at_s=2.0),
        answer("11:11:", {"n": 1}, incarnation=SECOND, at_s=8.0),
        answer("12:12:", {"n": 7}, incarnation=SECOND, at_s=9.5),
        eras=[AFTERWARDS],
    )
    assert verdict.clean
    lost = answer("11:11:", {"n": 2}, incarnation=SECOND, at_s=8.0)
    assert found(judged(WRITES, lost, eras=[AFTERWARDS])) == {"wrong": 1}


def test_an_old_incarnation_is_too_old_once_the_new_one_has_commits() -> None:
    """However many transactions it saw."""
    late = answer("13:13:", {"n": 2}, at_s=10.1, stale=False)
    assert found(judged([*WRITES, REUSED], late, eras=[AFTERWARDS])) == {"too_old": 1}


# -- nobody knows whether it committed -------------------------------------------------------------

MAYBE = write(12, {"a": 3}, acked_s=None, ambiguous=True)
ALSO = write(13, {"b": 3}, acked_s=None, ambiguous=True)


@pytest.mark.parametrize("value", [{"n": 2}, {"n": 3}])
def test_a_commit_of_which_nobody_knows_may_show_or_not(value: object) -> None:
    """Either is right, and nothing else is."""
    assert judged([*WRITES[:2], MAYBE], answer("13:13:", value, at_s=2.0)).clean
    assert found(judged([*WRITES[:2], MAYBE], answer("13:13:", {"n": 1}, at_s=2.0))) == {"wrong": 1}


def test_a_commit_of_which_nobody_knows_cannot_show_before_it_ended() -> None:
    """A snapshot in which it runs does not see it."""
    early = answer("12:13:12", {"n": 3}, at_s=2.0)
    assert found(judged([*WRITES[:2], MAYBE], early)) == {"wrong": 1}


def test_a_commit_of_which_nobody_knows_is_not_both() -> None:
    """Once a reply has shown what became of it, the others must agree."""
    shows, hides = answer("13:13:", {"n": 3}, at_s=2.0), answer("13:13:", {"n": 2}, at_s=2.0)
    assert found(judged([*WRITES[:2], MAYBE], shows, hides)) == {"wrong": 1}


@pytest.mark.parametrize(("total", "right"), [(7, True), (8, True), (5, True), (6, True), (9, False)])
def test_of_several_such_commits_any_may_show(total: int, right: bool) -> None:
    """Every combination is possible: a is 2 or 3, b is 5 or 3."""
    assert judged([*WRITES[:2], MAYBE, ALSO], answer("14:14:", total, "total", at_s=2.0)).clean is right


def test_such_a_commit_excuses_only_what_it_touched() -> None:
    """Another row is judged as ever."""
    assert found(judged([*WRITES[:2], MAYBE], answer("13:13:", {"n": 3}, "row:b", at_s=2.0))) == {"wrong": 1}


# -- against a dumb oracle -------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Write], list[Snapshot]]:
    """Transactions on three rows, in the order in which they committed, and a snapshot after each of them."""
    xids = draw(st.permutations(range(10, 10 + draw(st.integers(1, 7)))))
    writes, ended = [], set[int]()
    snapshots = [_snapshot(ended)]
    for place, xid in enumerate(xids):
        rows = draw(st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 3), min_size=1))
        writes.append(write(xid, rows, acked_s=float(place), seq=place))
        if draw(st.integers(0, 5)) == 0:
            emptied = LogRow(10 * place - 1, "t", None, None)
            writes[-1] = replace(writes[-1], rows=(emptied, *writes[-1].rows))
        ended.add(xid)
        snapshots.append(_snapshot(ended))
    return writes, snapshots


def _snapshot(ended: set[int]) -> Snapshot:
    xmax = max(ended, default=9) + 1
    running = tuple(sorted(set(range(10, xmax)) - ended))
    return Snapshot(min((*running, xmax)), xmax, running)


def _oracle(writes: list[Write], snapshot: Snapshot) -> dict[str, int]:
    """The rows at ``snapshot``: what it sees, replayed in the order of writing."""
    rows: dict[str, int] = {}
    for row in sorted(
        (row for each in writes if snapshot.sees(each.xid) for row in each.rows), key=lambda row: row.seq
    ):
        if row.key is None:
            rows.clear()
        elif row.value is None:
            rows.pop(row.key, None)
        else:
            rows[row.key] = row.value["n"]
    return rows


@given(histories(), st.data())
def test_the_judge_agrees_with_a_replay(
    history: tuple[list[Write], list[Snapshot]], data: st.DataObject
) -> None:
    """Whatever was committed in whatever order, right answers pass and others do not."""
    writes, snapshots = history
    answers, right = [], []
    for _ in range(data.draw(st.integers(1, 12))):
        snapshot, key = data.draw(st.sampled_from(snapshots)), data.draw(st.sampled_from("abc"))
        said = data.draw(st.none() | st.integers(0, 3))
        answers.append(answer(str(snapshot), None if said is None else {"n": said}, f"row:{key}"))
        right.append(_oracle(writes, snapshot).get(key) == said)
    verdict = judged(writes, *answers)
    assert verdict.counts["wrong"] == right.count(False)
    assert {violation.reply for violation in verdict.violations} == {
        at for at, is_so in enumerate(right) if not is_so
    }


@given(histories(), st.data())
def test_of_doubtful_commits_the_judge_allows_what_some_replay_allows(
    history: tuple[list[Write], list[Snapshot]], data: st.DataObject
) -> None:
    """A single answer is right if it is in at least one of the worlds that there may have been."""
    writes, snapshots = history
    doubted = data.draw(st.sets(st.sampled_from([each.xid for each in writes]), max_size=4))
    known = [replace(each, ambiguous=each.xid in doubted) for each in writes]
    snapshot, key = data.draw(st.sampled_from(snapshots)), data.draw(st.sampled_from("abc"))
    said = data.draw(st.none() | st.integers(0, 3))
    worlds = [
        [each for each in writes if each.xid not in doubted or each.xid in happened]
        for count in range(len(doubted) + 1)
        for happened in combinations(doubted, count)
    ]
    right = any(_oracle(world, snapshot).get(key) == said for world in worlds)
    verdict = judged(known, answer(str(snapshot), None if said is None else {"n": said}, f"row:{key}"))
    assert verdict.clean is right


@given(histories(), st.data())
def test_the_places_of_snapshots_agree_with_their_order(
    history: tuple[list[Write], list[Snapshot]], data: st.DataObject
) -> None:
    """Whichever snapshots are named, of two in the chain the later one sees all that the earlier one sees."""
    writes, snapshots = history
    named = data.draw(st.lists(st.sampled_from(snapshots), min_size=1))
    committed = [each.xid for each in writes]
    ordered = chain(named, committed)
    assert not ordered.misfits
    shown = [step.snapshots[0] for step in ordered.steps]
    assert shown == sorted(set(named), key=lambda snapshot: sum(map(snapshot.sees, committed)))
    for before, after in pairwise(shown):
        assert before.within(after)


@given(st.permutations(range(6)), st.integers(0, 6))
def test_the_rows_do_not_depend_on_the_order_of_arrival(order: list[int], emptied: int) -> None:
    """Transactions become visible in another order than they wrote."""
    rows = [LogRow(2 * seq, "t", "ab"[seq % 2], {"n": seq}) for seq in range(6)]
    rows.append(LogRow(2 * emptied - 1, "t", None, None))
    straight, mixed = State(), State()
    straight.apply(sorted(rows, key=lambda row: row.seq))
    mixed.apply(rows[at] for at in (*order, 6))
    assert [straight.get("t", key) for key in "ab"] == [mixed.get("t", key) for key in "ab"]
