"""Whether clients should come to a node: one answer for every door that tells it. Pure.

A node is ready once it has followed the database and knows the ring, until it drains. A database that is lost after
that does not make it unready: memory answers what it can prove, and the other nodes are no nearer to Postgres.
"""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

DRAINING: Final = "the node is told to stop, and answers what is under way"

Check = Callable[[], str]
"""What is wrong, in a sentence; empty if nothing is."""


class Readiness:
    """Of one node, whose ``checks`` have names."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._draining = False

    def __repr__(self) -> str:
        return f"<Readiness {self.wrong() or 'ready'}>"

    def __bool__(self) -> bool:
        return not self.wrong()

    @property
    def draining(self) -> bool:
        """Whether the node has been told to stop."""
        return self._draining

    def drain(self) -> None:
        """Unready from now on."""
        self._draining = True

    def wrong(self) -> dict[str, str]:
        """By name, why the node is not ready; empty if it is."""
        found = {name: check() for name, check in self._checks.items()}
        if self._draining:
            found["draining"] = DRAINING
        return {name: what for name, what in found.items() if what}


class Followed(Protocol):
    """How far a node has followed the database."""

    @property
    def watermark(self) -> object:
        """None while there is nothing to vouch for."""


class Following(Protocol):
    """What follows the database."""

    @property
    def last_error(self) -> str:
        """Why the last poll failed; empty if it has not."""


def follows(timeline: Followed, feed: Following) -> Check:
    """Wrong until the database has been followed, and whenever that must begin anew."""

    def check() -> str:
        if timeline.watermark is not None:
            return ""
        return f"the feed has not caught up with the database: {feed.last_error or 'its first poll is under way'}"

    return check
