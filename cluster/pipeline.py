"""Many prepared statements in one round trip.

psycopg's own pipeline waits for the socket before each statement, which is most of what a small read
costs. Here all are handed to libpq first and sent together. They come in segments: an error skips the
rest of its own segment only, so that what ends a transaction stands in a segment after it.

Built on `psycopg.pq`, psycopg's wrapper of libpq, and on the generator protocol of `psycopg.waiting`.
"""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain, count
from typing import Final, NamedTuple

from psycopg.abc import PQGen
from psycopg.errors import OperationalError, error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

__all__ = ["FAILED", "Prepared", "Segment", "Statement", "Take", "array", "exchange", "round_trip"]

FAILED: Final = (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE)
"""What a result of a statement that failed says; the rest of its segment was skipped."""


class Statement(NamedTuple):
    """SQL with ``$n`` placeholders, and its arguments as text (UTF-8, without NUL)."""

    sql: bytes
    arguments: Sequence[bytes]


def array(items: Sequence[bytes | None]) -> bytes:
    """An array argument: ``items`` as Postgres reads them, None as NULL."""
    return b"{" + b",".join(b"NULL" if item is None else _quoted(item) for item in items) + b"}"


def _quoted(item: bytes) -> bytes:
    return b'"' + item.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


Segment = Sequence[Statement]
Take = Callable[[list[PGresult], bool], None]
"""Gets the results of the next segment, and whether the server has ended it."""


class Prepared:
    """The names of what a connection has prepared."""

    def __init__(self) -> None:
        self._names: dict[bytes, bytes] = {}
        self._numbers = count()

    def name(self, sql: bytes) -> tuple[bytes, bool]:
        """The name for ``sql``, and whether it has to be prepared under it first."""
        known = self._names.get(sql)
        if known is not None:
            return known, False
        self._names[sql] = name = b"snapring_%d" % next(self._numbers)
        return name, True

    def forget(self, sql: bytes) -> None:
        """Preparing ``sql`` did not succeed."""
        del self._names[sql]


def round_trip(
    pgconn: PGconn, prepared: Prepared, segments: Sequence[Segment]
) -> PQGen[list[list[PGresult]]]:
    """The results of each segment's statements, in order. Raises the first `psycopg.Error` of all.

    A generator for `psycopg.AsyncConnection.wait`; whoever runs it has the connection to itself.
    """
    answers: list[list[PGresult]] = []
    yield from exchange(pgconn, prepared, segments, lambda results, _: answers.append(results))
    for result in chain.from_iterable(answers):
        if result.status in FAILED:
            raise error_from_result(result)
    return answers


def exchange(pgconn: PGconn, prepared: Prepared, segments: Sequence[Segment], take: Take) -> PQGen[None]:
    """The same, but each segment's results go to ``take`` as soon as they are there, failed or not.

    What a segment without BEGIN did is committed if it has ended and nothing in it failed. Where the
    connection is lost, ``take`` gets what came of the segment under way; then `psycopg.OperationalError`.
    """
    pgconn.enter_pipeline_mode()
    preparing = deque(_send(pgconn, prepared, segment) for segment in segments)

    def answered(results: list[PGresult], ended: bool) -> None:
        places = preparing.popleft()
        for place, sql in places.items():
            if place >= len(results) or results[place].status != ExecStatus.COMMAND_OK:
                prepared.forget(sql)
        take(
            [
                result
                for place, result in enumerate(results)
                if place not in places or result.status in FAILED
            ],
            ended,
        )

    yield from _converse(pgconn, len(segments), answered)
    pgconn.exit_pipeline_mode()


def _send(pgconn: PGconn, prepared: Prepared, segment: Segment) -> dict[int, bytes]:
    """Queue one segment; what it prepares, by the place of the result of preparing it."""
    preparing: dict[int, bytes] = {}
    places = count()
    for sql, arguments in segment:
        name, new = prepared.name(sql)
        if new:
            pgconn.send_prepare(name, sql)
            preparing[next(places)] = sql
        pgconn.send_query_prepared(name, arguments)
        next(places)
    pgconn.pipeline_sync()
    return preparing


def _converse(pgconn: PGconn, segments: int, take: Take) -> PQGen[None]:
    """Send what libpq holds, and read each segment's results."""
    results: list[PGresult] = []
    try:
        sent = pgconn.flush() == 0
        while True:
            ready = yield Wait.R if sent else Wait.RW
            if ready & Ready.R:
                pgconn.consume_input()
                segments -= _read(pgconn, results, take)
                if not segments:
                    return
            if not sent and ready & Ready.W:
                sent = pgconn.flush() == 0
    except OperationalError:
        if segments > _read(pgconn, results, take):
            take(results, False)
        raise


def _read(pgconn: PGconn, results: list[PGresult], take: Take) -> int:
    """How many segments end in what libpq has received; ``results`` keeps what there is of the next."""
    ended, nothing = 0, False
    while not pgconn.is_busy():
        result = pgconn.get_result()
        if result is None:  # the end of one statement's results, and the second time of everything's
            if nothing:
                break
        elif result.status == ExecStatus.PIPELINE_SYNC:
            ended += 1
            take(results.copy(), True)
            results.clear()
        else:
            results.append(result)
        nothing = result is None
    return ended
