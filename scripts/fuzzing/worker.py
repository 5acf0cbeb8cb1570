"""The process in which one target is fuzzed: what it breaks by, another process survives and counts.

atheris follows which ways the inputs take through the modules named in the docket, and breeds from those that took
new ones. What an input breaks is noted, and the next one tried; what ends the process is noted by libFuzzer.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final, cast

import atheris

from scripts.fuzzing.docket import APART, DOCKET
from scripts.fuzzing.findings import Findings
from scripts.fuzzing.target import Stand, Target

MAX_MIB: Final = 1024
"""Of memory: whoever takes more is ended, and the input kept."""

_SHRINKING_S: Final = 5.0
"""For making an input that breaks something smaller."""

_MAX_S: Final = 60
"""For one input."""


def main() -> None:
    """Fuzz until the bound; never returns, as libFuzzer ends the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=DOCKET)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--executions", type=int, default=-1)
    parser.add_argument("--database", default="")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--break", dest="broken", default="")
    parser.add_argument("--cases", type=Path)
    parser.add_argument("--replay", type=Path)
    asked = parser.parse_args()
    followed = APART if asked.port else DOCKET[asked.target].followed
    with atheris.instrument_imports(include=[*followed]):
        module = importlib.import_module(f"scripts.fuzzing.targets.{asked.target}")
    if asked.broken:
        from scripts.fuzzing.breaks import BREAKS  # noqa: PLC0415 -- it imports what must be followed

        BREAKS[asked.broken].plant()
    target: Target = module.made(Stand(folder=asked.folder, database=asked.database, port=asked.port))
    if asked.replay:
        target.attempt(asked.replay.read_bytes())
        print(f"{asked.replay}: nothing breaks")
        return
    _fuzz(target, asked)


def _fuzz(target: Target, asked: argparse.Namespace) -> None:
    findings = Findings(
        asked.folder, asked.target, target.attempt, shrinking_s=0.0 if asked.broken else _SHRINKING_S
    )

    def attempt(data: bytes) -> None:
        try:
            target.attempt(data)
        except Exception as defect:  # noqa: BLE001 -- it is what is looked for
            findings.note(data, defect)
            if asked.broken:
                os._exit(1)  # libFuzzer has no other way to stop

    corpus = _corpus(target, asked)
    words = asked.folder / "words"
    words.write_text("".join(f'"{_quoted(word)}"\n' for word in target.words))
    options = {
        "artifact_prefix": f"{asked.folder}/{asked.target}-",
        "dict": words,
        "max_len": target.max_bytes,
        "max_total_time": asked.seconds,
        "print_final_stats": 1,
        "rss_limit_mb": MAX_MIB,
        "runs": asked.executions,
        "seed": asked.seed,
        "timeout": _MAX_S,
    }
    call = [sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(corpus)]
    atheris.Setup(call, attempt, custom_mutator=_mutator(target))
    atheris.Fuzz()


def _corpus(target: Target, asked: argparse.Namespace) -> Path:
    corpus = cast("Path", asked.folder) / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    for case in sorted(asked.cases.glob(f"{asked.target}-*.input")) if asked.cases else ():
        (corpus / case.name).write_bytes(case.read_bytes())
    return corpus


def _mutator(target: Target) -> Callable[[bytes, int, int], bytes]:
    def mutate(data: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        changed = target.changed(data, random) if random.random() < 0.5 else None
        return cast("bytes", atheris.Mutate(data, most)) if changed is None else changed[:most]

    return mutate


def _quoted(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main()
