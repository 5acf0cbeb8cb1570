"""What comes of one client's commands, whatever they raise."""

import asyncio
import logging
from typing import Final

from cluster.doors.reads import Come, Late
from cluster.doors.resp.commands import Counts, Outcome, Session, Words
from cluster.doors.resp.followed import Followed
from cluster.doors.resp.frames import error, failure
from snapring.errors import NodeStopping, SnapringError

_log: Final = logging.getLogger("snapring.resp")

STOPPING: Final = NodeStopping("the node is stopping: ask another")
_DEFECT: Final = error(SnapringError.code, "the node failed at this command; its log says how")


class Outcomes:
    """Outcomes of ``commands`` for ``session``; with ``draining`` they are refused. All is counted in ``counts``."""

    __slots__ = ("_commands", "_counts", "_session", "draining")

    def __init__(self, commands: Followed, session: Session, counts: Counts) -> None:
        self._commands = commands
        self._session = session
        self._counts = counts
        self.draining = False

    def of(self, words: Words) -> Outcome:
        """What the command that ``words`` spell comes to; it raises nothing."""
        self._counts.commands += 1
        try:
            if self.draining:
                raise STOPPING
            return self._commands.execute(self._session, words)
        except SnapringError as failed:
            return self.failed(failed)
        except Exception as defect:  # noqa: BLE001  # a defect in one command must not reach the next
            return self.failed(defect)

    def came(self, late: Late, come: Come) -> Come:
        """What ``late`` has come to."""
        return self._commands.came(self._session, late, come)

    def failed(self, failed: BaseException) -> bytes:
        """The frame of an error."""
        self._counts.errors += 1
        if isinstance(failed, SnapringError):
            return failure(failed)
        if isinstance(failed, asyncio.CancelledError):
            return failure(STOPPING)
        _log.error("a command failed of a defect", exc_info=failed)
        return _DEFECT
