"""The demonstration's judge must know the truth, and must have teeth."""

import json
from dataclasses import replace
from math import inf
from pathlib import Path

import msgpack
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.snapshots import Snapshot
from cluster.tokens import Ticket, TokenCodec
from scripts.demonstration.__main__ import main
from scripts.demonstration.checker import Checker, Observation
from scripts.demonstration.history import PREPARE, History
from scripts.demonstration.node_info import ClusterInfo, NodeInfo, parsed
from scripts.demonstration.screen import report
from scripts.demonstration.tally import Percentiles, Tally, summary
from scripts.demonstration.truth import Posting, Truth
from scripts.demonstration.workload import CACHES, Read, Reads

SECRET = b"a secret of the demonstration"
INCARNATION = 2**63 + 7
CODEC = TokenCodec([SECRET])
BY_NAME = {cache.name: cache for cache in CACHES}
ACCOUNT_7 = Read(BY_NAME["account_by_id"], 7)


def posting(xid: int, delta: int, *, account: int = 7, teller: int = 3, committed_s: float = 0.0) -> Posting:
    """A transaction of pgbench on branch 1."""
    return Posting(xid=xid, account=account, teller=teller, branch=1, delta=delta, committed_s=committed_s)


def reply(balance: int, at: Snapshot, *, received_s: float = 0.0) -> Observation:
    """A reply on account 7 that claims ``balance`` at ``at``."""
    return Observation(
        read=ACCOUNT_7,
        value=msgpack.packb({"aid": 7, "bid": 1, "abalance": balance}),
        as_of=CODEC.encode(at, INCARNATION),
        age_s=0.5,
        received_s=received_s,
    )


@pytest.fixture
def truth() -> Truth:
    """Account 7: +10 by transaction 100 at second 1, +1 by 105 at second 3, +5 by 102 at second 4."""
    known = Truth(Snapshot(100, 100))
    known.extend(
        [posting(100, 10, committed_s=1), posting(105, 1, committed_s=3)], Snapshot(102, 106, (102,))
    )
    known.extend([posting(102, 5, committed_s=4)], Snapshot(106, 106))
    return known


@pytest.fixture
def checker(truth: Truth) -> Checker:
    """A checker that knows commit times."""
    return Checker(truth, CODEC, INCARNATION, scale=1, timed=True)


@st.composite
def journals(draw: st.DrawFn) -> tuple[list[Posting], Snapshot]:
    """Transactions in the order in which they committed, and a snapshot among them."""
    xids = draw(st.permutations(range(10, 10 + draw(st.integers(0, 8)))))
    postings = [
        posting(
            xid,
            draw(st.integers(-9, 9)),
            account=draw(st.integers(1, 2)),
            committed_s=draw(st.integers(0, 50)),
        )
        for xid in xids
    ]
    running = draw(st.sets(st.integers(10, 18)))
    xmax = draw(st.integers(10, 19))
    xip = tuple(sorted(xid for xid in running if xid < xmax))
    return postings, Snapshot(min((*xip, xmax)), xmax, xip)


@given(journals(), st.integers(0, 8))
def test_balances_equal_the_sum_over_what_the_snapshot_sees(
    journal: tuple[list[Posting], Snapshot], split: int
) -> None:
    """However the journal arrives, a balance is the dumb sum, and so is the first commit not seen."""
    postings, at = journal
    known = Truth(Snapshot(10, 10))
    for part in (postings[:split], postings[split:]):
        known.extend(part, Snapshot(20, 20))
    for account in (1, 2):
        own = [one for one in postings if one.account == account]
        assert known.balance(("account", account), at) == sum(one.delta for one in own if at.sees(one.xid))
        unseen = [one.committed_s for one in own if one.committed_s is not None and not at.sees(one.xid)]
        assert known.first_unseen_s([("account", account)], at) == min(unseen, default=inf)


def test_accepts_the_truth_at_each_snapshot(checker: Checker) -> None:
    """The same key has different right answers at different snapshots."""
    right = [
        reply(0, Snapshot(100, 100)),
        reply(10, Snapshot(102, 103, (102,))),
        reply(11, Snapshot(102, 106, (102,))),
        reply(16, Snapshot(106, 106)),
    ]
    assert [verdict.fault for verdict in checker.judge(right)] == [None] * 4


def test_counts_every_corrupted_reply(checker: Checker) -> None:
    """Wrong in any way that a cache can be wrong: old value, new value, torn, lost, another row, noise."""
    at = Snapshot(102, 106, (102,))
    good = reply(11, at)
    corrupted = [
        reply(10, at),
        reply(16, at),
        replace(good, as_of=CODEC.encode(Snapshot(106, 106), INCARNATION)),
        replace(good, value=None),
        replace(good, value=msgpack.packb({"aid": 8, "bid": 1, "abalance": 11})),
        replace(good, value=b"\xc1"),
        replace(good, value=msgpack.packb([{"aid": 7, "bid": 1, "abalance": 11}])),
    ]
    tally = Tally()
    tally.judged(checker.judge([good, *corrupted, good]))
    assert (tally.checked, tally.wrong) == (len(corrupted) + 2, len(corrupted))
    assert "account_by_id:7" in tally.examples[0]


def test_refuses_a_snapshot_that_cannot_be(checker: Checker) -> None:
    """A token that is forged, foreign, no snapshot, or ahead of the database makes the reply wrong."""
    good = reply(16, Snapshot(106, 106))
    forged = TokenCodec([b"another secret, 16 bytes"]).encode(Snapshot(106, 106), INCARNATION)
    tokens = [
        forged,
        CODEC.encode(Snapshot(106, 106), INCARNATION + 1),
        CODEC.encode(Ticket(102), INCARNATION),
        CODEC.encode(Snapshot(107, 107), INCARNATION),
    ]
    faults = [verdict.fault for verdict in checker.judge([replace(good, as_of=token) for token in tokens])]
    assert all(faults), faults


@pytest.mark.parametrize(
    ("at", "received_s", "staleness_s"),
    [
        (Snapshot(106, 106), 9.0, 0.0),  # it sees everything
        (Snapshot(102, 106, (102,)), 9.0, 5.0),  # lacks 102, committed at 4
        (Snapshot(102, 103, (102,)), 9.0, 6.0),  # lacks 105 too, committed at 3
        (Snapshot(102, 106, (102,)), 3.5, 0.0),  # 102 was not committed yet
    ],
)
def test_staleness_counts_from_the_first_commit_not_seen(
    checker: Checker, at: Snapshot, received_s: float, staleness_s: float
) -> None:
    """Measured from outside, at the reply's arrival."""
    (verdict,) = checker.judge([reply(0, at, received_s=received_s)])
    assert verdict.staleness_s == staleness_s


def test_staleness_without_commit_times_is_the_age_claimed(truth: Truth) -> None:
    """A database that does not record commit times leaves only the reply's word."""
    (verdict,) = Checker(truth, CODEC, INCARNATION, scale=1, timed=False).judge(
        [reply(16, Snapshot(106, 106))]
    )
    assert verdict.staleness_s == 0.5


def test_every_cache_has_an_answer_made_of_its_rows(truth: Truth) -> None:
    """What each cache must answer at the end of the journal."""
    at = truth.complete_to
    answers = {
        cache.name: cache.expected(truth, 7 if "account" in cache.name else 1, 1, at) for cache in CACHES
    }
    assert answers == {
        "account_by_id": {"aid": 7, "bid": 1, "abalance": 16},
        "teller_by_id": {"tid": 1, "bid": 1, "tbalance": 0},
        "branch_total": {"total": 16, "tellers": 10},
        "account_with_branch": {"aid": 7, "abalance": 16, "bid": 1, "bbalance": 16},
        "top_tellers": [{"tid": tid, "tbalance": 16 * (tid == 3)} for tid in (3, 1, 2, 4, 5)],
    }


def test_reads_are_skewed_and_stay_in_range() -> None:
    """Popular arguments dominate, and every argument exists at the scale."""
    reads = Reads(1, seed=1).take(5_000)
    accounts = [read.argument for read in reads if read.cache.name == "account_by_id"]
    assert {read.cache.name for read in reads} == set(BY_NAME)
    assert all(1 <= argument <= 100_000 for argument in accounts)
    assert len(set(accounts)) < 0.7 * len(accounts)


def test_percentiles_are_ranks() -> None:
    """The p-th percentile is the smallest duration that p of all do not exceed."""
    durations = Percentiles()
    assert durations.at(0.99) == 0.0
    for milliseconds in range(1, 101):
        durations.add(milliseconds / 1e3)
    assert [durations.at(fraction) for fraction in (0.01, 0.5, 0.99, 1.0)] == [0.001, 0.05, 0.099, 0.1]


def test_the_summary_has_the_fields_that_others_read(checker: Checker) -> None:
    """The names are an interface."""
    tally = Tally()
    tally.judged(checker.judge([reply(16, Snapshot(106, 106)), reply(1, Snapshot(106, 106))]))
    tally.sources.update(local=1, load=1)
    written = summary(tally, seconds=2.0, timed=True, database_reads=1, transactions=3, more={"scale": 1})
    named = ("seconds", "replies", "wrong", "hit_ratio", "database_reads", "staleness_p99_ms")
    assert {name: written[name] for name in named} == {
        "seconds": 2.0,
        "replies": 2,
        "wrong": 1,
        "hit_ratio": 0.5,
        "database_reads": 1,
        "staleness_p99_ms": 0.0,
    }


def test_what_nodes_count_is_added_up() -> None:
    """A read that one passed on to another is a hit or a miss there, and there alone."""
    asked, owner = (NodeInfo(name, "127.0.0.1", 0) for name in ("node-0", "node-1"))
    asked._fields = {"hits": "1", "misses": "0", "forwarded": "3", "breaker_state": "closed", "loads": "0"}
    owner._fields = {"hits": "2", "misses": "1", "watermark_age_s": "0.02", "breaker_state": "open"}
    info = ClusterInfo([asked, owner])
    assert (info.hit_ratio, info.total("hits"), info.worst("watermark_age_s")) == (0.75, 3, 0.02)
    assert info.breaker == "closed, open"
    assert [(row["name"], row["forwarded"]) for row in info.rows()] == [("node-0", 3), ("node-1", 0)]


def test_a_node_by_itself_has_no_row_on_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor in the report: there is nobody to tell it from."""
    numbers = summary(Tally(), seconds=1.0, timed=True, database_reads=0, transactions=0, more={})
    row = {"name": "node-0", "share": 1.0, "hit_ratio": 0.5, "forwarded": 0}
    report({**numbers, "nodes": [row]})
    assert "node-0" not in capsys.readouterr().out
    report({**numbers, "nodes": [row, {**row, "name": "node-1"}]})
    assert "node-1: 100.0% of the keys; 50.0% out of its memory" in capsys.readouterr().out


def test_info_is_read_by_field() -> None:
    """Headings are skipped; a value may hold a colon."""
    assert parsed(b"# Node\r\nloads:3\r\nwatermark:7:9:\r\n") == {"loads": "3", "watermark": "7:9:"}


async def test_the_journal_is_followed_without_losing_a_late_commit(database: str) -> None:
    """A transaction that began early and committed late is entered by the fetch that first sees it."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int)")
        for statement in PREPARE:
            connection.execute(statement.encode())
    insert = b"INSERT INTO pgbench_history (tid, bid, aid, delta) VALUES (3, 1, 7, %b)"
    history = await History.open(database)
    with psycopg.connect(database) as late, psycopg.connect(database, autocommit=True) as early:
        truth = await history.beginning()
        late.execute(insert % b"100")
        early.execute(insert % b"1")
        await history.follow(truth)
        between = truth.complete_to
        assert truth.balance(("account", 7), between) == 1
        late.commit()
        early.execute(insert % b"10")
        await history.follow(truth)
        await history.follow(truth)
    await history.aclose()
    assert truth.transactions == 3
    assert truth.balance(("account", 7), between) == 1
    assert truth.balance(("account", 7), truth.complete_to) == 111


def test_a_whole_run_checks_replies_and_leaves_no_table(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PostgreSQL, pgbench, node, readers and judge together: replies came, every one right."""
    file = tmp_path / "summary.json"
    assert main(["--seconds", "1.5", "--database", database, "--json", str(file)]) == 0
    summary = json.loads(file.read_text())
    assert summary["replies"] > 0
    assert summary["wrong"] == 0
    assert summary["errors"] == {}
    assert sum(node["share"] for node in summary["nodes"]) == pytest.approx(1, abs=1e-5)
    assert all(node["forwarded"] for node in summary["nodes"])
    told = capsys.readouterr().out
    assert "0 wrong" in told
    assert "node-2: 33.3% of the keys" in told
    with psycopg.connect(database) as connection:
        left = connection.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'pgbench%'").fetchone()
    assert left == (0,)


def test_refuses_a_database_whose_tables_it_would_drop(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables of pgbench that someone else made are left alone."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE pgbench_tellers AS SELECT 1 AS tid")
    assert main(["--database", database]) == 2
    assert "pgbench_tellers" in capsys.readouterr().err
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT tid FROM pgbench_tellers").fetchone() == (1,)


def test_fails_when_nothing_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without replies proves nothing, so it does not pass."""

    async def nothing(*_: object) -> dict[str, object]:
        return summary(Tally(), seconds=1.0, timed=True, database_reads=0, transactions=0, more={"nodes": []})

    monkeypatch.setattr("scripts.demonstration.__main__._demonstrate", nothing)
    assert main([]) == 1
