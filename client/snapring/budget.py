"""How much may be tried again. Pure."""

from typing import Final

SHARE: Final = 0.1
"""What each request adds: in the long run, one retry in ten requests."""

RESERVE: Final = 10.0
"""Most retries in a burst."""


class RetryBudget:
    """A bucket of retries, filled by requests, so that a cluster in trouble gets no storm on top.

    Callers in several threads may lose a fraction of what they add; none can take more than there is by more
    than one each. (The retry budget of Finagle, in its simplest form.)
    """

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = RESERVE

    def earn(self) -> None:
        """A request begins."""
        if self.left < RESERVE:
            self.left = min(RESERVE, self.left + SHARE)

    def spend(self) -> bool:
        """Whether a retry may be made; then it is paid for."""
        if self.left < 1:
            return False
        self.left -= 1
        return True
