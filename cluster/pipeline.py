"""Many prepared statements in one round trip.

psycopg's own pipeline waits for the socket before each statement, which is most of what a small read
costs. Here all are handed to libpq first and sent together. They come in segments: an error skips the
rest of its own segment only, so that what ends a transaction stands in a segment after it.

Built on `psycopg.pq`, psycopg's wrapper of libpq, and on the generator protocol of `psycopg.waiting`.
"""

from collections.abc import Sequence
from itertools import chain, count
from typing import Final, NamedTuple

from psycopg.abc import PQGen
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

__all__ = ["Prepared", "Segment", "Statement", "round_trip"]

_FAILED: Final = (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE)


class Statement(NamedTuple):
    """SQL with ``$n`` placeholders, and its arguments as text (UTF-8, without NUL)."""

    sql: bytes
    arguments: Sequence[bytes]


Segment = Sequence[Statement]


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
    pgconn.enter_pipeline_mode()
    preparing = [_send(pgconn, prepared, segment) for segment in segments]
    answers = yield from _converse(pgconn, len(segments))
    pgconn.exit_pipeline_mode()
    for places, results in zip(preparing, answers, strict=True):
        for place, sql in places.items():
            if place >= len(results) or results[place].status != ExecStatus.COMMAND_OK:
                prepared.forget(sql)
    for result in chain.from_iterable(answers):
        if result.status in _FAILED:
            raise error_from_result(result)
    return [
        [result for place, result in enumerate(results) if place not in places]
        for places, results in zip(preparing, answers, strict=True)
    ]


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


def _converse(pgconn: PGconn, segments: int) -> PQGen[list[list[PGresult]]]:
    """Send what libpq holds, and read each segment's results."""
    answers: list[list[PGresult]] = [[]]
    sent = pgconn.flush() == 0
    while True:
        ready = yield Wait.R if sent else Wait.RW
        if ready & Ready.R:
            pgconn.consume_input()
            while not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    continue  # the end of one statement's results
                if result.status != ExecStatus.PIPELINE_SYNC:
                    answers[-1].append(result)
                elif len(answers) == segments:
                    return answers
                else:
                    answers.append([])
        if not sent and ready & Ready.W:
            sent = pgconn.flush() == 0
