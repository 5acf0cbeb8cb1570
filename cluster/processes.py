"""The processes of this machine: who is whose child, and signals to those that may have ended."""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path


def live_processes() -> Iterator[tuple[int, int]]:
    """(pid, parent's pid) of every process that is not a zombie."""
    for pid, parent, state in _process_table():
        if not state.startswith("Z"):
            yield int(pid), int(parent)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal; nothing happens where the process has ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _process_table() -> Iterator[Sequence[str]]:
    if not Path("/proc/self/stat").exists():
        command = ["ps", "-A", "-o", "pid=,ppid=,state="]  # POSIX: where there is no /proc
        table = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
        yield from map(str.split, table.stdout.splitlines())
        return
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            state, parent = (directory / "stat").read_text().rpartition(")")[2].split()[:2]
            yield directory.name, parent, state
