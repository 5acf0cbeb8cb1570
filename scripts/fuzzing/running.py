"""One target, fuzzed in a process of its own, seen from outside: executions, memory, what was found."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from scripts.fuzzing.growth import Growth, Sample, growth
from scripts.fuzzing.standing import Failed, Standing

CASES: Final = Path(__file__).parents[2] / "tests" / "fuzz_cases"
"""Inputs that once broke something, which every run begins with."""

_SAMPLE_S: Final = 0.5
_GRACE_S: Final = 120.0
"""For what is not fuzzing: starting, making what was found smaller, ending."""

_MIB: Final = 1024 * 1024
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_EXECUTED: Final = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_PULSE: Final = re.compile(r"^#(\d+)\s.*?cov: (\d+) ft: \d+ corp: (\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long: ``seconds``, or until so many ``executions``."""

    seconds: int
    executions: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of fuzzing one target. ``edges`` are the ways through the code that inputs have taken.

    ``found`` are the files of inputs that broke something, ``folder`` is where they are.
    """

    target: str
    seconds: float
    executions: int
    edges: int
    corpus: int
    growth: Growth
    found: tuple[Path, ...]
    load_average: float

    @property
    def sound(self) -> bool:
        """Whether nothing broke, and memory stays in bounds."""
        return not self.found and self.growth.bounded


def run(
    target: str, stand: Standing, bounds: Bounds, *, seed: int, keep: Path, planted: str | None = None
) -> Run:
    """Fuzz ``target``; inputs that break something are kept in ``keep``. Raises `Failed`."""
    with tempfile.TemporaryDirectory(prefix="snapring-fuzz-") as folder:
        log = Path(folder) / "log"
        words = _call(target, Path(folder), seed, bounds)
        words += [*stand.options, *(("--break", planted) if planted else ())]
        began_s = monotonic()
        with (
            log.open("wb") as output,
            subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT) as worker,
        ):
            try:
                _ready(worker, Path(folder) / "words")
                samples = list(
                    _samples(worker, stand.pid or worker.pid, monotonic() + bounds.seconds + _GRACE_S)
                )
            finally:
                worker.kill()
        said = log.read_text(errors="replace")
        found = tuple(_kept(target, Path(folder), keep, said))
        pulses, executed = _PULSE.findall(said), _EXECUTED.search(said)
        if not (found or (pulses and executed)):
            raise Failed(f"{target}: the fuzzer ended with {worker.returncode}:\n{said[-4000:]}")
        reached, edges, corpus = map(int, pulses[-1]) if pulses else (0, 0, 0)
        return Run(
            target=target,
            seconds=monotonic() - began_s,
            executions=int(executed[1]) if executed else reached,
            edges=edges,
            corpus=corpus,
            growth=growth(samples),
            found=found,
            load_average=os.getloadavg()[0],
        )


def replay(target: str, file: Path, stand: Standing) -> int:
    """Read the input in ``file`` once more; the exit code of who did."""
    with tempfile.TemporaryDirectory(prefix="snapring-fuzz-") as folder:
        words = [*_worker(target), "--folder", folder, "--seed", "1", "--replay", str(file), *stand.options]
        return subprocess.run(words, check=False).returncode


def _worker(target: str) -> list[str]:
    return [sys.executable, "-P", "-m", "scripts.fuzzing.worker", target]


def _call(target: str, folder: Path, seed: int, bounds: Bounds) -> list[str]:
    bound = ["--seconds", str(bounds.seconds)]
    if bounds.executions is not None:
        bound += ["--executions", str(bounds.executions)]
    # libFuzzer takes 0 for no seed at all.
    named = ["--folder", str(folder), "--seed", str(seed + 1), "--cases", str(CASES)]
    return [*_worker(target), *named, *bound]


def _ready(worker: subprocess.Popen[bytes], words: Path) -> None:
    """Return once everything is imported and stands, or the worker has ended."""
    until_s = monotonic() + _GRACE_S
    while worker.poll() is None and not words.exists() and monotonic() < until_s:
        sleep(_SAMPLE_S / 10)


def _samples(worker: subprocess.Popen[bytes], pid: int, until_s: float) -> Iterator[Sample]:
    """The memory of ``pid`` until the worker ends, or must be ended."""
    began_s = monotonic()
    yield 0.0, _resident_mib(pid)
    while monotonic() < until_s:
        try:
            worker.wait(_SAMPLE_S)
        except subprocess.TimeoutExpired:
            if resident := _resident_mib(pid):
                yield monotonic() - began_s, resident
        else:
            return


def _resident_mib(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / _MIB
    except (OSError, IndexError):
        return 0.0


def _kept(target: str, folder: Path, keep: Path, said: str) -> Iterator[Path]:
    """Every input that broke something, moved to ``keep``, with what is known of it beside it."""
    for file in sorted(folder.glob(f"{target}-*")):
        if file.suffix == ".txt":
            continue
        keep.mkdir(parents=True, exist_ok=True)
        kept = keep / file.name
        kept.write_bytes(file.read_bytes())
        told = file.with_suffix(".txt")
        kept.with_suffix(".txt").write_text(told.read_text() if told.exists() else said[-20_000:])
        yield kept
