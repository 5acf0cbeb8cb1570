"""``snapring caches``: what caches there are, and what of them is in memory."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from cluster.commands import reach
from cluster.commands.outcomes import FOUND, OK
from cluster.commands.run import Run, complain, print_json, print_table
from cluster.overview import show_size
from cluster.survey import Found, survey

_COLUMNS: Final = ("cache", "kind", "args", "staleness", "entries", "memory", "lookups", "hits")
_COUNTED: Final = ("entries", "bytes", "lookups", "hits", "misses", "nodes")

Cache = dict[str, str | int]


def run(run: Run) -> int:
    """Print a row a cache, entries and memory of all nodes together: code 1 if a node refuses a cache or does not answer."""
    found = asyncio.run(survey(reach.doors(run), within_s=run.arguments.timeout, by=reach.introduction(run)))
    caches = together(found)
    silent = [node.error for node in found if node.error]
    refused = {name: str(cache["refused"]) for name, cache in caches.items() if "refused" in cache}
    if run.terminal:
        print_table(_COLUMNS, [_row(name, cache) for name, cache in caches.items()])
        for name, reason in refused.items():
            complain(f"{name} is refused: {reason}")
    else:
        print_json({"caches": [{"cache": name, **cache} for name, cache in caches.items()], "errors": silent})
    for error in silent:
        complain(error)
    return FOUND if silent or refused else OK


def together(nodes: Iterable[Found]) -> dict[str, Cache]:
    """The caches by name: what their nodes say, numbers summed up. A read that one forwards is a lookup of two."""
    caches: dict[str, Cache] = {}
    for found in nodes:
        for name, line in found.info.get("caches", {}).items():
            cache = caches.setdefault(name, dict.fromkeys(_COUNTED, 0))
            said = {**_fields(line), "nodes": "1"}
            sums = {field: int(cache[field]) + _number(said, field) for field in _COUNTED}
            cache |= {**said, **sums}
    return dict(sorted(caches.items()))


def _fields(line: str) -> dict[str, str]:
    if line.startswith("refused="):
        return {"refused": line.removeprefix("refused=")}
    return dict(part.partition("=")[::2] for part in line.split(","))


def _ratio(hits: int, misses: int) -> str:
    """Of what the nodes answered themselves."""
    return f"{hits / (hits + misses):.1%}" if hits + misses else "-"


def _number(said: Mapping[str, str], field: str) -> int:
    text = said.get(field, "")
    return int(text) if text.isdecimal() else 0


def _row(name: str, cache: Cache) -> list[str]:
    staleness = cache.get("max_staleness_s")
    return [
        name,
        str(cache.get("kind", "-")),
        "any" if cache.get("kind") == "store" else str(cache.get("arguments", "-")),
        f"{staleness} s" if staleness else "-",
        str(cache["entries"]),
        show_size(str(cache["bytes"])),
        str(cache["lookups"]),
        _ratio(int(cache["hits"]), int(cache["misses"])),
    ]
