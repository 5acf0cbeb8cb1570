"""Small worlds to be explored in every order of their steps, each around one danger."""

from typing import Final

from scripts.simulation.explore import Scenario
from scripts.simulation.messages import Limits
from scripts.simulation.world import Step

_FOLLOW: Final[tuple[Step, ...]] = (("poll", 0), ("apply", 0), ("load", 0, "a"), ("land", 0, "a"))
_SECOND: Final[tuple[Step, ...]] = (("poll", 1), ("apply", 1), ("load", 1, "a"), ("land", 1, "a"))
_WRITE: Final[tuple[Step, ...]] = (("write", "T1", "a"), ("commit", "T1"))
_OTHER: Final[tuple[Step, ...]] = (("write", "T2", "b"), ("commit", "T2"))

SCENARIOS: Final = (
    Scenario(
        name="transactions that end out of order, under a slow load",
        alphabet=(
            *_WRITE, *_OTHER, ("write", "T2", "a"), ("roll back", "T1"), ("load", 0, "all"), ("land", 0, "all"),
            *_FOLLOW,
        ),
        depth=9,
    ),
    Scenario(
        name="two nodes that own the same key",
        alphabet=(*_WRITE, ("write", "T2", "a"), ("commit", "T2"), *_FOLLOW, *_SECOND, ("hand", 0, "a"), ("hand", 1, "a")),
        depth=8,
    ),
    Scenario(
        name="a log that forgets at once",
        alphabet=(*_WRITE, *_OTHER, *_FOLLOW, ("evict", 0, "a")),
        depth=10,
        limits=Limits(log_max_changes=1, max_changes_per_poll=2),
    ),
    Scenario(
        name="a crash that loses commits and reuses their xids",
        alphabet=(*_WRITE, ("prepare", "T1"), *_OTHER, ("crash", 0), ("crash", 1), *_FOLLOW),
        depth=9,
    ),
    Scenario(
        name="changes that name no rows, trimming and DDL",
        alphabet=(
            *_WRITE, ("write", "T1", "bulk"), ("write", "T2", "anything"), ("commit", "T2"), ("trim",), ("alter",),
            *_FOLLOW,
        ),
        depth=9,
    ),
    Scenario(
        name="polls that fail, and fail half way",
        alphabet=(*_WRITE, *_OTHER, ("stumble", 0), ("lose", 0), ("wait", 5), ("load", 0, "all"), ("land", 0, "all"), *_FOLLOW),
        depth=8,
    ),
    Scenario(
        name="callers of one flight: tokens, cancellations, deadlines",
        alphabet=(
            ("ask", 0, 1, "a", "bounded", 0, 12), ("ask", 0, 2, "a", "at least", 0, 12), ("ask", 0, 3, "a", "strong", 0, 4),
            ("cancel", 0, 1), ("cancel", 0, 2), ("turn", 0, 0), ("turn", 0, 1), ("serve", 0, "a"), ("arrive", 0, "a"),
            ("fail", 0, "a"), ("wait", 5), *_WRITE,
        ),
        depth=7,
    ),
    Scenario(
        name="callers who wait for the feed",
        alphabet=(
            ("ask", 0, 1, "a", "strong", 0, 4), ("ask", 0, 2, "a", "exactly", 0, 12), ("turn", 0, 0), ("turn", 0, 1),
            ("serve", 0, "a"), ("arrive", 0, "a"), *_WRITE, *_FOLLOW, ("poll", 1), ("wait", 5),
        ),
        depth=7,
        opening=(("load", 0, "a"), ("land", 0, "a"), ("write", "T1", "a")),
    ),
)  # fmt: skip
