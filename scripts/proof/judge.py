"""Judges a record of replies against the history of the database. Pure, and after the event.

What is demanded of a reply: its value is what the database held at the snapshot it names, a snapshot that
Postgres had when the reply came; that snapshot has seen what was asked for; a session never goes back; and
a FRESH reply to a plain read sees what was acknowledged ``max_staleness`` before it was asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cluster.snapshots import Snapshot
from cluster.tokens import TokenCodec
from scripts.demonstration.tally import Percentiles
from scripts.proof.caches import Cache
from scripts.proof.course import NOWHERE
from scripts.proof.docket import Docket
from scripts.proof.history import History
from scripts.proof.naming import Named
from scripts.proof.replies import NO_SESSION, Asked, Replies
from scripts.proof.sessions import Sessions

WRONG: Final = "wrong"
UNSEEN: Final = "token_violations"
BACK: Final = "went_back"
OLD: Final = "too_old"
KINDS: Final = (WRONG, UNSEEN, BACK, OLD)

MOST_VIOLATIONS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """Reply number ``reply`` is not as demanded: ``kind`` is what it counts as, ``words`` say why.

    ``against``: the reply that it contradicts, where it takes two.
    """

    kind: str
    reply: int
    words: str
    against: int | None = None


@dataclass(slots=True)
class Verdict:
    """What came of judging: counts by kind, and the first `MOST_VIOLATIONS` of each in words."""

    replies: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    violations: list[Violation] = field(default_factory=list)
    staleness: Percentiles = field(default_factory=Percentiles)

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not any(self.counts.values())

    def charge(self, kind: str, reply: int, words: str, against: int | None = None) -> None:
        """Count a violation."""
        self.counts[kind] += 1
        if self.counts[kind] <= MOST_VIOLATIONS:
            self.violations.append(Violation(kind=kind, reply=reply, words=words, against=against))


def judge(caches: Mapping[str, Cache], history: History, replies: Replies, codec: TokenCodec) -> Verdict:
    """Judge every reply; those to ``caches`` by the truth that these know."""
    trial = _Trial(Docket(caches, history, replies, codec))
    for at, row in enumerate(zip(*replies.columns.values(), strict=True)):
        trial.hear(_Reply(at, *row))
    return trial.verdict


class _Reply(NamedTuple):
    """A row of the record."""

    at: int
    key: int
    value: int
    as_of: int
    asked: int
    token: int
    stale: int
    session: int
    sent_s: float
    received_s: float


class _Trial:
    """Hears one reply after another, in the order of the record."""

    def __init__(self, docket: Docket) -> None:
        self._docket = docket
        self._sessions = Sessions()
        self.verdict = Verdict()

    def hear(self, reply: _Reply) -> None:
        docket = self._docket
        self.verdict.replies += 1
        place = docket.places[reply.as_of]
        if place == NOWHERE or (reply.as_of, reply.key, reply.value) in docket.falsehoods:
            self._charge(WRONG, reply, docket.falsehood(reply.key, reply.value, reply.as_of))
            return
        if docket.course.begun_s(place) > reply.received_s:
            self._charge(WRONG, reply, "and the last transaction it sees had yet to be committed")
        match reply.asked:
            case Asked.BOUNDED:
                self._require_fresh(reply, place)
            case Asked.STRONG:
                self._require_present(reply, place)
            case Asked.ATLEAST:
                self._require_seen(reply, place)
            case Asked.EXACT:
                self._require_exactly(reply)
                return  # it is as old as was asked for
        self.verdict.staleness.add(max(0.0, reply.received_s - docket.course.unseen_since_s(place)))
        if reply.session != NO_SESSION:
            newer = self._sessions.contradicts(reply.session, place, reply.sent_s, reply.at)
            if newer is not None:
                self._charge(BACK, reply, "after its session had been shown a newer one", against=newer)

    def _require_fresh(self, reply: _Reply, place: int) -> None:
        allowed_s = self._docket.max_staleness_s[reply.key]
        if not reply.stale and place < self._docket.course.needed(reply.sent_s - allowed_s):
            words = f"FRESH, without a commit acknowledged {allowed_s:g} s before it was asked for"
            self._charge(OLD, reply, words)

    def _require_present(self, reply: _Reply, place: int) -> None:
        if place < self._docket.course.needed(reply.sent_s):
            self._charge(UNSEEN, reply, "STRONG, without a commit acknowledged before it was asked for")

    def _require_seen(self, reply: _Reply, place: int) -> None:
        wanted, given = self._docket.named[reply.token], self._docket.named[reply.as_of]
        assert isinstance(wanted, Named), "readers ask with tokens they were given"
        assert isinstance(given, Named), "it has a place"
        if isinstance(wanted.position, Snapshot):
            seen = place >= self._docket.places[reply.token]
        else:
            assert isinstance(given.position, Snapshot), "it has a place"
            seen = given.position.sees(wanted.position.xid)
        if wanted.incarnation != given.incarnation or not seen:
            self._charge(UNSEEN, reply, f"asked for at least {wanted}")

    def _require_exactly(self, reply: _Reply) -> None:
        if self._docket.named[reply.token] != self._docket.named[reply.as_of]:
            self._charge(UNSEEN, reply, f"asked for exactly {self._docket.named[reply.token]}")

    def _charge(self, kind: str, reply: _Reply, words: str, against: int | None = None) -> None:
        subject = f"{self._docket.keys[reply.key]} at {self._docket.named[reply.as_of]}"
        self.verdict.charge(kind, reply.at, f"{subject}: {words}", against)
