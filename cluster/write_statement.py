"""A write as Postgres takes it, and what the server's answer says about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from cluster.feed import INCARNATION_MASK
from cluster.pipeline import FAILED, Statement, array
from cluster.postgres import translate
from cluster.snapshots import Snapshot
from cluster.writes import Deed, Refused, Written, stored_text
from snapring.errors import SnapringError, WriteUncertain

_WRITE: Final = b"""
SELECT xid, version, incarnation, existed, refused, seen
  FROM snapring.write($1::text[], $2::bytea[], $3::bigint[], false)
"""
_UNKNOWN: Final = "the write was sent, but {}: it may have happened, or may soon, unless it demands a version that is gone by then"
_ENDINGS: Final = ("FATAL", "PANIC")


@dataclass(frozen=True, slots=True)
class Busy:
    """Nothing was done, because another transaction is writing ``key``, a canonical text."""

    key: str


def statement(deeds: Sequence[Deed]) -> Statement:
    """What does all of ``deeds`` or none, and waits for no other transaction that writes their keys."""
    keys = [stored_text(deed.key).encode() for deed in deeds]
    values = [None if deed.value is None else b"\\x" + deed.value.hex().encode() for deed in deeds]
    versions = [None if deed.if_version is None else b"%d" % deed.if_version for deed in deeds]
    return Statement(_WRITE, (array(keys), array(values), array(versions)))


def outcome(results: Sequence[PGresult], *, ended: bool) -> Written | Busy | SnapringError:
    """What became of a write, going by what the server said about its transaction.

    The statement's own result comes before the commit, and counts only if the segment has ended, which is
    after it. An error is the end of a transaction that was not committed; but a backend that dies may do so
    after the commit, so its last words count only if they came in place of the statement's result.
    """
    failure = next((result for result in results if result.status in FAILED), None)
    if failure is None:
        return _answer(results[-1]) if ended else uncertain("the connection was lost")
    error = error_from_result(failure)
    executed = any(result.status == ExecStatus.TUPLES_OK for result in results)
    if not _is_the_servers(error) or (executed and not _is_plain(error)):
        return uncertain("the connection was lost")
    return translate(error)


def _answer(result: PGresult) -> Written | Busy | SnapringError:
    xid, version, incarnation, existed, refused, seen = (result.get_value(0, column) for column in range(6))
    era = int(incarnation or 0) & INCARNATION_MASK
    if refused is not None and seen is not None:
        at = Snapshot.parse(seen.decode())
        return Refused(refused.decode(), version=int(version or 0), seen=at, incarnation=era)
    if refused is not None:
        return Busy(refused.decode())
    return Written(xid=int(xid or 0), version=int(version or 0), incarnation=era, existed=int(existed or 0))


def backend_has_ended(results: Sequence[PGresult]) -> bool:
    """Whether the server's process said that it ends, so that it executes nothing more."""
    errors = [error_from_result(result) for result in results if result.status in FAILED]
    return any(_is_the_servers(error) and not _is_plain(error) for error in errors)


def _is_the_servers(error: psycopg.Error) -> bool:
    """Whether the server itself said so: a pooler that lost it does not know what became of the write."""
    return error.sqlstate is not None and error.diag.source_function is not None


def _is_plain(error: psycopg.Error) -> bool:
    return error.diag.severity_nonlocalized not in _ENDINGS


def uncertain(reason: str) -> WriteUncertain:
    """The error of a write that was sent, and then ``reason``."""
    return WriteUncertain(_UNKNOWN.format(reason))
