"""How many requests are traced: a token bucket of one second. Pure: the clock is given."""

from collections.abc import Callable


class Rate:
    """Lets ``per_s`` a second through, a second's worth at once. ``passed_over`` counts the others."""

    def __init__(self, per_s: int, clock: Callable[[], float]) -> None:
        self._most = float(per_s)
        self._clock = clock
        self._credit = self._most
        self._filled_s = clock()
        self.passed_over = 0

    def __repr__(self) -> str:
        return f"<Rate {self._most:g}/s passed_over={self.passed_over}>"

    def take(self) -> bool:
        """Whether one more is within the rate, which it then uses up."""
        now = self._clock()
        self._credit = min(self._most, self._credit + (now - self._filled_s) * self._most)
        self._filled_s = now
        if self._credit < 1.0:
            self.passed_over += 1
            return False
        self._credit -= 1.0
        return True
