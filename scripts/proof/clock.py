"""A wall clock that a proof may step, for the processes that are started with it; the machine's is never touched.

Where there is a C compiler, a library made of ``clock_shim.c`` is preloaded into the node and into PostgreSQL
and shifts what they see as the time of day; without one `time.time` is replaced, in the node alone. Either
reads the shift from one small file, so a step takes effect at once, in every process.
"""

import mmap
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

VARIABLE: Final = "PROOF_WALL_CLOCK"

_SHIM: Final = Path(__file__).with_name("clock_shim.c")
_OFFSET: Final = struct.Struct("=q")
_NS: Final = 1_000_000_000


class WallClock:
    """The time of day of every process started with ``environment``; ``directory`` is where it is kept.

    Those processes' accounts must be able to reach the directory.
    """

    def __init__(self, directory: Path, *, compiler: str = "cc") -> None:
        self._file = directory / "clock"
        self._library = _compiled(directory / "clock_shim.so", compiler)
        self.step(0.0)

    @property
    def preloaded(self) -> bool:
        """Whether PostgreSQL follows it too."""
        return self._library is not None

    @property
    def how(self) -> str:
        """Who sees its steps, and by what means."""
        return "preloaded into the node and PostgreSQL" if self.preloaded else "time.time of the node alone"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process is started with that is to follow this clock."""
        preload = {"LD_PRELOAD": str(self._library)} if self._library else {}
        return {VARIABLE: str(self._file), **preload}

    def step(self, seconds: float) -> None:
        """Let the clock differ from the machine's by ``seconds``."""
        with self._file.open(
            "r+b" if self._file.exists() else "wb"
        ) as file:  # in place: others have it mapped
            file.write(_OFFSET.pack(round(seconds * _NS)))
        self._file.chmod(0o644)


def follow() -> None:
    """Make `time.time` follow the clock that the environment names, unless a preloaded library does."""
    if VARIABLE not in os.environ or "LD_PRELOAD" in os.environ:
        return
    with Path(os.environ[VARIABLE]).open("rb") as file:
        offset = mmap.mmap(file.fileno(), _OFFSET.size, access=mmap.ACCESS_READ)
    machine: Callable[[], int] = time.time_ns
    time.time_ns = lambda: int(machine() + _OFFSET.unpack(offset)[0])
    time.time = lambda: time.time_ns() / _NS


def _compiled(library: Path, compiler: str) -> Path | None:
    program = shutil.which(compiler)
    if program is None or sys.platform != "linux":
        return None
    command = (program, "-shared", "-fPIC", "-O2", "-o", str(library), str(_SHIM), "-ldl")
    if subprocess.run(command, check=False, capture_output=True).returncode:
        return None
    library.chmod(0o755)
    return library
