"""The signals that tell a command to end: SIGTERM, and SIGHUP, which comes when its terminal is closed.

Where SIGHUP is ignored, as under nohup, it stays so.
"""

import asyncio
import signal
from collections.abc import Callable
from typing import Final

ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


def when_told(act: Callable[[], object]) -> None:
    """Call ``act`` in this loop at the first such signal; further ones, as a closed terminal sends, do nothing."""
    acts = [act]

    def told() -> None:
        while acts:
            acts.pop()()

    for number in _heeded():
        asyncio.get_running_loop().add_signal_handler(number, told)


def interrupt_when_told() -> None:
    """Such a signal raises `KeyboardInterrupt`, except in loops that have another use for it."""
    for number in _heeded():
        signal.signal(number, signal.default_int_handler)


def heed_no_more() -> None:
    """This process ends already: from now on such signals do nothing."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _heeded() -> list[signal.Signals]:
    return [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
