"""How long to wait before trying again. Pure."""

from random import Random


class Backoff:
    """Pauses that double from ``first_s`` to ``most_s``, each drawn between half of it and all of it.

    The draw keeps nodes that failed together from coming back together.
    """

    def __init__(self, *, first_s: float, most_s: float, random: Random) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._random = random
        self._bound_s = first_s

    def __repr__(self) -> str:
        return f"<Backoff next_s<={self._bound_s:g}>"

    def next_s(self) -> float:
        """The next pause, in seconds."""
        bound_s = self._bound_s
        self._bound_s = min(bound_s * 2, self._most_s)
        return bound_s * self._random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """It went well: begin with ``first_s`` again."""
        self._bound_s = self._first_s
