"""The last good view of the membership, and how discovery has fared since. Pure.

A view is good if its source answered and it is not empty. Nothing else replaces the one that is kept: an
error, a silence or an empty answer is counted, told once to the log, and leaves the ring as it is.
"""

import logging
from collections.abc import Callable
from math import inf
from typing import Final

from peers.members import Members

_log: Final = logging.getLogger("snapring.discovery")


class LastGood:
    """What one discovery knows. For one event loop; no method awaits.

    ``answers`` counts good answers, ``partial`` those of them in which something was lacking, ``empty`` the
    answers that named nobody, ``failures`` the attempts that brought no answer. ``last_error`` is what went
    wrong most recently; the next good answer in which nothing is lacking clears it. ``view`` is empty until
    there has been a good answer, and never again.
    """

    def __init__(self, source: str, *, clock: Callable[[], float]) -> None:
        self.source = source
        self._clock = clock
        self._answered_s = -inf
        self.view: Members = {}
        self.answers = self.partial = self.empty = self.failures = 0
        self.last_error = ""

    def __repr__(self) -> str:
        state = self.last_error or "well"
        return f"<LastGood {self.source} members={len(self.view)} age_s={self.age_s:.1f} {state}>"

    @property
    def age_s(self) -> float:
        """How long ago the last good answer came, in seconds; infinity before the first."""
        return self._clock() - self._answered_s

    def take(self, view: Members, *, lacking: str = "") -> bool:
        """A view was had: keep it unless it is empty. Whether it differs from the one before.

        ``lacking`` says what could not be learned, where something could not.
        """
        if not view:
            self.empty += 1
            self._went_wrong(lacking or "the answer names no member")
            return False
        self.answers += 1
        self._answered_s = self._clock()
        if lacking:
            self.partial += 1
            self._went_wrong(lacking)
        else:
            self._went_well()
        changed = view != self.view
        self.view = view
        return changed

    def failed(self, reason: str) -> bool:
        """No answer was had: the view stays. Always False, as nothing changed."""
        self.failures += 1
        self._went_wrong(reason)
        return False

    def _went_wrong(self, reason: str) -> None:
        if reason != self.last_error:  # a failure that lasts is one line, not one a second
            _log.warning("%s: %s; %d members stay as they were", self.source, reason, len(self.view))
        self.last_error = reason

    def _went_well(self) -> None:
        if self.last_error:
            _log.info("%s answers again", self.source)
        self.last_error = ""
