"""Runs suites of measurements, shows their figures against the promises, and writes them as JSON."""

import argparse
import asyncio
import importlib
import inspect
import json
import os
import pkgutil
import sys
import time
import traceback
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import scripts.benchmarks

Figure = Mapping[str, Any]
"""``figure``, ``value``, ``at_least`` or ``at_most``, ``aim``, ``detail``."""

_NO_SUITES = frozenset({"__main__"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suites asked for. 0 when every figure keeps its promise, 1 when not, 2 on a wrong call.

    A suite that breaks is reported, and the others run.
    """
    known = suites()
    parsed = _parser(known).parse_args(arguments)
    unknown = set(parsed.suites) - set(known)
    if unknown:
        print(f"bench: no suite {', '.join(sorted(unknown))}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    figures: list[Figure] = []
    broken = 0
    for name in parsed.suites or known:
        began_s, load = time.monotonic(), os.getloadavg()[0]
        print(f"bench: {name} …", file=sys.stderr, flush=True)
        try:
            measured = _measure(name, {"traces": parsed.traces, "seconds": parsed.seconds})
        except Exception:  # noqa: BLE001 - hours of other suites must not be lost with it
            broken += 1
            traceback.print_exc()
            continue
        figures += [{**figure, "load_average": round(load, 2)} for figure in measured]
        print(f"bench: {name} took {time.monotonic() - began_s:.0f} s", file=sys.stderr, flush=True)
        if parsed.json:
            parsed.json.write_text(json.dumps(figures, indent=2) + "\n")
    _show(figures)
    return 0 if figures and not broken and all(map(keeps, figures)) else 1


def suites() -> list[str]:
    """The suites there are: the modules of this package that export ``run``."""
    names = (module.name for module in pkgutil.iter_modules(scripts.benchmarks.__path__))
    return sorted(name for name in names if name not in _NO_SUITES and hasattr(_suite(name), "run"))


def keeps(figure: Figure) -> bool:
    """Whether the figure keeps its promise."""
    if "at_least" in figure:
        return bool(figure["value"] >= figure["at_least"])
    return bool(figure["value"] <= figure["at_most"])


def reaches(figure: Figure) -> bool:
    """Whether the figure reaches its aim."""
    if "at_least" in figure:
        return bool(figure["value"] >= figure["aim"])
    return bool(figure["value"] <= figure["aim"])


def _parser(known: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description="Measures what the README promises.")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"{', '.join(known)} (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--seconds", type=float, metavar="S", help="how long `outage` and `split_views` last")
    parser.add_argument("--traces", type=Path, metavar="DIR", help="where the traces of `policies` lie")
    return parser


def _suite(name: str) -> Any:
    return importlib.import_module(f"{scripts.benchmarks.__name__}.{name}")


def _measure(name: str, options: Mapping[str, Any]) -> Iterable[Figure]:
    """A suite's figures; ``run`` may be a coroutine function, and takes the options that it names."""
    run = _suite(name).run
    named = {option: options[option] for option in options if option in inspect.signature(run).parameters}
    answer: Iterable[Figure] | Coroutine[None, None, Iterable[Figure]] = run(**named)
    return asyncio.run(answer) if isinstance(answer, Coroutine) else answer


def _show(figures: Sequence[Figure]) -> None:
    table = Table("figure", "value", "promised", "aim", "verdict", "load average")
    for figure in figures:
        promise = f">= {figure['at_least']:g}" if "at_least" in figure else f"<= {figure['at_most']:g}"
        table.add_row(
            str(figure["figure"]),
            f"{figure['value']:.4g}",
            promise,
            f"{figure['aim']:g}",
            _verdict(figure),
            str(figure["load_average"]),
        )
    Console().print(table)
    for figure in figures:
        print(f"{figure['figure']}: {_detail(figure.get('detail', ''))}")


def _verdict(figure: Figure) -> str:
    if not keeps(figure):
        return "[red]SHORT[/]"
    return "[green]aim reached[/]" if reaches(figure) else "[yellow]kept[/]"


def _detail(detail: object) -> str:
    if isinstance(detail, Mapping):
        return ", ".join(f"{name} {value}" for name, value in detail.items())
    return str(detail)


if __name__ == "__main__":
    raise SystemExit(main())
