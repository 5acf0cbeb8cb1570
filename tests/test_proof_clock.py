"""The wall clock of the processes that a proof starts can be stepped; no other clock, and no one else's."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from scripts.proof.clock import WallClock

ASKED: Final = """
import sys, time
from scripts.proof import clock
clock.follow()
for _ in sys.stdin:
    print(time.time(), time.time_ns() / 1e9, time.monotonic(), flush=True)
"""


class Asked:
    """A process that tells its clocks, each as the difference from this one's."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def tells(self) -> list[int]:
        """time, time_ns and monotonic, in whole seconds ahead."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        told = map(float, self._process.stdout.readline().split())
        ours = time.time(), time.time(), time.monotonic()
        return [round(theirs - own) for theirs, own in zip(told, ours, strict=True)]


@contextmanager
def asked(environment: Mapping[str, str]) -> Iterator[Asked]:
    """Such a process under a clock."""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", "import sys; sys.path.insert(0, '.')" + ASKED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as process:
        yield Asked(process)


@pytest.mark.parametrize("compiler", ["cc", "no compiler of this name"])
def test_steps_the_time_of_day_and_nothing_else(tmp_path: Path, compiler: str) -> None:
    """With a C compiler and without: to and fro, for processes that run already."""
    clock = WallClock(tmp_path, compiler=compiler)
    with asked(clock.environment) as process:
        assert process.tells() == [0, 0, 0]
        for step_s in (3600, -86_400, 0):
            clock.step(step_s)
            assert process.tells() == [step_s, step_s, 0]


def test_says_who_sees_the_steps(tmp_path: Path) -> None:
    """Without a compiler PostgreSQL goes by the machine's clock, and a proof must not claim otherwise."""
    clock = WallClock(tmp_path, compiler="no compiler of this name")
    assert not clock.preloaded
    assert "LD_PRELOAD" not in clock.environment
    assert clock.how == "time.time of the node alone"


def test_a_process_without_the_environment_keeps_the_machines_clock(tmp_path: Path) -> None:
    """As does everybody whom the proof did not start."""
    WallClock(tmp_path).step(3600)
    with asked({}) as process:
        assert process.tells() == [0, 0, 0]
