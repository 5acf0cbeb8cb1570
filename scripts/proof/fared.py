"""How clients fared while things broke: which requests failed where nothing was broken, and how long any took. Pure."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from scripts.proof.replies import Failure, Replies

ABOUT_THE_QUESTION: Final = frozenset(
    {"SNAPSHOT_UNAVAILABLE", "SNAPSHOT_EXPIRED", "TOKEN_FOREIGN", "TOKEN_AHEAD", "CATALOG_CHANGING"}
)
"""What a node may answer though nothing is broken: the database has become another one, or is past what was asked."""

_AFTERWARDS_S: Final = 1.0
"""How long after a recovery what it has delayed may still come in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """From ``began_s`` to ``ended_s``, recovery included, the node on ``port`` was in trouble; None: every node."""

    port: int | None
    began_s: float
    ended_s: float

    def excuses(self, port: int, sent_s: float, received_s: float) -> bool:
        """Whether what was asked of ``port`` meanwhile may fail, or take long."""
        here = self.port in (None, port)
        return here and sent_s <= self.ended_s + _AFTERWARDS_S and received_s >= self.began_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Fared:
    """Requests to nodes that were well: those that ``failed``, by their code, and the ``longest_s`` that one took.

    What befalls PostgreSQL excuses a failure, and no request that outlasts its deadline.
    """

    failed: Mapping[str, int]
    longest_s: float


def fared(replies: Replies, troubles: Collection[Trouble], *, since_s: float, until_s: float) -> Fared:
    """Of what was asked between ``since_s`` and ``until_s``."""
    failures = [
        failure
        for failure in replies.failures
        if failure.code not in ABOUT_THE_QUESTION and since_s <= failure.sent_s <= until_s
    ]
    single = [trouble for trouble in troubles if trouble.port is not None]
    waits = {when: wait_s for when, wait_s in replies.waits.items() if since_s <= when[1] <= until_s}
    return Fared(
        failed=Counter(failure.code for failure in failures if not _excused(failure, troubles)),
        longest_s=max(
            (
                wait_s
                for (port, second), wait_s in waits.items()
                if not any(each.excuses(port, second, second + 1 + wait_s) for each in single)
            ),
            default=0.0,
        ),
    )


def _excused(failure: Failure, troubles: Collection[Trouble]) -> bool:
    return any(each.excuses(failure.port, failure.sent_s, failure.received_s) for each in troubles)
