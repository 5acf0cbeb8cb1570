"""Whether what a node says is so. Knows the model's truth and none of the code under test.

I1: a reply's value is what the database held at the snapshot that it names. I2: a watermark goes forward.
I3 needs no rule of its own: both nodes are held to I1 for every key. An age never understates: whatever had
been committed when the snapshot was surely current, it sees. And each consistency gets what it asked for.
"""

import asyncio

from cluster.requests import Reply, State
from cluster.snapshots import Snapshot
from scripts.simulation.messages import Call, Claim, Limits, Outcome, Violation
from scripts.simulation.model import Database, Token, Truth, value_of, visible
from scripts.simulation.terms import text
from snapring.errors import DeadlineExceeded, SnapringError, SnapshotUnavailable, TokenAhead, TokenForeign


def judge_claim(db: Database, claim: Claim) -> None:
    """Raise `Violation` unless ``claim`` is true."""
    truth, since = db.truths[claim.at], db.truths[claim.since]
    _judge_value(claim.key, claim.value, truth, db.tokens[claim.at])
    _judge_age(db, truth, claim.current_s, db.tokens[claim.at])
    if truth.incarnation != since.incarnation or truth.commits < since.commits:
        asked, given = db.tokens[claim.since].snapshot, db.tokens[claim.at].snapshot
        raise Violation(f"{claim.key} was asked for at or after {asked} and answered as of {given}")


def judge_watermark(db: Database, before: Snapshot | None, after: Snapshot | None, incarnation: int) -> None:
    """Raise `Violation` if the watermark went back."""
    if before is None or after is None or before is after:
        return
    known, now = db.truth(before, incarnation), db.truth(after, incarnation)
    if known is None or now is None or now.commits < known.commits:
        raise Violation(f"the watermark went from {before} to {after}")


def judge_outcome(db: Database, outcome: Outcome, limits: Limits) -> None:
    """Raise `Violation` unless the caller got what it may get."""
    call, reply, error = outcome.call, outcome.reply, outcome.error
    who = f"caller {call.caller}, who asked for {call.key} {call.how},"
    if reply is not None:
        as_of = Token(reply.as_of, reply.incarnation)
        truth = db.truth(*as_of)
        if truth is None:
            raise Violation(f"{who} was answered as of {reply.as_of}, which nobody took")
        _judge_value(call.key, text(reply.value), truth, as_of)
        _judge_age(db, truth, outcome.now_s - reply.age_s, as_of)
        if not _satisfied(db, call, reply, truth, outcome.now_s - limits.max_staleness_s):
            raise Violation(f"{who} was answered {reply.state.value} as of {reply.as_of}")
    elif not _may_fail(error, outcome):
        raise Violation(f"{who} got {error!r}")


def _judge_value(key: str, value: str, truth: Truth, as_of: Token) -> None:
    expected = value_of(key, truth.contents)
    if value != expected:
        raise Violation(f"{key} is said to be {value} as of {as_of.snapshot}, and was {expected}")


def _judge_age(db: Database, truth: Truth, current_s: float, as_of: Token) -> None:
    until_s = db.current_until_s(truth)
    if until_s <= current_s:
        said = f"{as_of.snapshot} is said to have been current at {current_s:g} s"
        raise Violation(f"{said}, and was overtaken at {until_s:g} s")


def _satisfied(db: Database, call: Call, reply: Reply, truth: Truth, oldest_s: float) -> bool:
    """Whether ``reply`` is of the consistency that ``call`` asked for, or says that it is not."""
    match call.how:
        case "bounded":
            return reply.state is State.STALE or db.current_until_s(truth) > oldest_s
        case "strong":
            return reply.state is State.FRESH and db.current_until_s(truth) > call.asked_s
    assert call.token is not None, "the others ask for a token"
    if reply.state is not State.FRESH or reply.incarnation != call.token.incarnation:
        return False
    asked = db.truth(*call.token)
    assert asked is not None, "clients hold what was taken"
    match call.how:
        case "exactly":
            return reply.as_of == call.token.snapshot
        case "ticket":
            return visible(call.token.snapshot.xmax - 1, reply.as_of)
    return truth.commits >= asked.commits


def _may_fail(error: BaseException | None, outcome: Outcome) -> bool:
    """Whether ``error`` is one that this caller can have brought about or that its request admits."""
    call = outcome.call
    match error:
        case asyncio.CancelledError():
            return outcome.cancelled
        case DeadlineExceeded():
            return outcome.now_s >= call.deadline_s
        case TokenForeign():
            return call.token is not None
        case TokenAhead():
            return call.how in ("at least", "ticket")
        case SnapshotUnavailable():
            return call.how == "exactly"
    return isinstance(error, SnapringError) and error.retryable
