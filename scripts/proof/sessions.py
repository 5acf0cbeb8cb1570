"""What sessions have been shown. Pure."""

from dataclasses import dataclass
from typing import Final

_NOTHING: Final = (-1, -1)


@dataclass(slots=True)
class _Shown:
    """The newest place by now, and before the present round; each with the reply that named it."""

    round_s: float
    newest: tuple[int, int]
    before: tuple[int, int]


class Sessions:
    """Each session's rounds, in order. Within a round, which begins when it is sent, nothing is promised."""

    def __init__(self) -> None:
        self._shown: dict[int, _Shown] = {}

    def contradicts(self, session: int, place: int, sent_s: float, reply: int) -> int | None:
        """The reply of an earlier round that was shown more than ``reply`` is, at ``place``; None if none was."""
        shown = self._shown.setdefault(session, _Shown(sent_s, _NOTHING, _NOTHING))
        if shown.round_s < sent_s:
            shown.round_s, shown.before = sent_s, shown.newest
        shown.newest = max(shown.newest, (place, reply))
        return shown.before[1] if place < shown.before[0] else None
