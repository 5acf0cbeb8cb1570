"""Compares what the readers got with the journal: every reply, in batches."""

import asyncio
from typing import Final

from scripts.demonstration.checker import Checker
from scripts.demonstration.history import History
from scripts.demonstration.readers import Unjudged
from scripts.demonstration.tally import Tally
from scripts.demonstration.truth import Truth

_PERIOD_S: Final = 0.05
_MAX_UNJUDGED: Final = 20_000
_SLICE: Final = 500


class Judge:
    """Takes replies out of ``unjudged`` and counts the verdicts on them."""

    def __init__(self, history: History, truth: Truth, checker: Checker, tally: Tally) -> None:
        self.truth = truth
        self.unjudged = Unjudged(_MAX_UNJUDGED)
        self._history = history
        self._checker = checker
        self._tally = tally

    async def run(self) -> None:
        """Judge batch after batch; between two is a safe place to cancel."""
        while True:
            await asyncio.shield(asyncio.ensure_future(self.judge_batch()))
            await asyncio.sleep(_PERIOD_S)

    async def judge_batch(self) -> None:
        """Judge everything that waits."""
        # Taken before the journal is read, so that the journal covers each reply's arrival.
        batch = self.unjudged.take()
        await self._history.follow(self.truth)
        for start in range(0, len(batch), _SLICE):
            self._tally.judged(self._checker.judge(batch[start : start + _SLICE]))
            await asyncio.sleep(0)
