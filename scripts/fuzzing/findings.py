"""What was found: an input for each way in which something broke, kept as a file that can be replayed."""

import traceback
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from time import monotonic
from typing import Final

MAX_KEPT: Final = 20
"""Ways to break that are kept apart; of what comes after that many nothing is kept."""

_SHOWN_FRAMES: Final = 3


class Findings:
    """Of one target, in ``folder``; ``attempt`` is what raised."""

    def __init__(
        self, folder: Path, target: str, attempt: Callable[[bytes], None], *, shrinking_s: float
    ) -> None:
        self._shrinking_s = shrinking_s
        self._folder = folder
        self._target = target
        self._attempt = attempt
        self._known: set[str] = set()

    def note(self, data: bytes, defect: Exception) -> None:
        """Keep ``data``, made smaller, unless something broke in the same way before."""
        way = _way(defect)
        if way in self._known or len(self._known) >= MAX_KEPT:
            return
        self._known.add(way)
        data = smaller(data, lambda part: self._breaks(part, way), self._shrinking_s)
        name = f"{self._target}-{blake2b(way.encode(), digest_size=4).hexdigest()}"
        (self._folder / f"{name}.input").write_bytes(data)
        shown = "".join(traceback.format_exception(defect))
        (self._folder / f"{name}.txt").write_text(f"{data!r:.2000}\n\n{shown}")

    def _breaks(self, data: bytes, way: str) -> bool:
        try:
            self._attempt(data)
        except Exception as defect:  # noqa: BLE001 -- whatever it is, it is compared
            return _way(defect) == way
        return False


def _way(defect: Exception) -> str:
    """What tells it from others: its kind, and where it was raised."""
    frames = traceback.extract_tb(defect.__traceback__)[-_SHOWN_FRAMES:]
    return f"{type(defect).__name__} {[(frame.filename, frame.lineno) for frame in frames]}"


def smaller(data: bytes, breaks: Callable[[bytes], bool], within_s: float) -> bytes:
    """A part of ``data`` that ``breaks`` as well, found within so many seconds by leaving pieces out."""
    until_s = monotonic() + within_s
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data):
            if monotonic() > until_s:
                return data
            part = data[:at] + data[at + size :]
            if breaks(part):
                data = part
            else:
                at += size
        size //= 2
    return data
