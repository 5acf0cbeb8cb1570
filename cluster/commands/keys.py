"""``snapring keys PREFIX``: the keys of a store cache at one snapshot; of a cache of rows, what nodes have in memory."""

from collections.abc import Sequence
from typing import Any, Final

from cluster.commands import reach
from cluster.commands.get import demanded
from cluster.commands.outcomes import MISSING, OK
from cluster.commands.run import Run, complain, print_json, print_table
from cluster.commands.values import printable
from cluster.overview import show_size
from snapring import Client, Held, Kept, Page
from snapring.errors import CallInvalid

_PAGE: Final = 500
_MEMORY_PAGE: Final = 2000
_MINUTE_S: Final = 60


def run(run: Run) -> int:
    """Print at most ``--limit`` keys, in their order: code 1 if there are none."""
    try:
        with reach.client(run) as client:
            keys, last, more = pages(run, client)
    except CallInvalid:
        if any(demanded(run).values()):
            raise
        return _browse(run)
    if run.terminal:
        print_table(("key", "version"), [(printable(key), str(version)) for key, version in keys])
        if more:
            complain(
                f"there are more: --after {printable(keys[-1][0])} --exactly {last.as_of}, or a greater --limit"
            )
    else:
        named = [{"key": key, "version": version} for key, version in keys]
        age_ms = None if last.age_s is None else round(last.age_s * 1000)
        print_json({"keys": named, "as_of": last.as_of, "age_ms": age_ms, "more": more})
    return OK if keys else MISSING


def pages(run: Run, client: Client) -> tuple[list[tuple[str, int]], Page, bool]:
    """The keys, the last page, and whether there are more. The pages after the first are at its snapshot."""
    limit, options = run.arguments.limit, demanded(run)
    keys: list[tuple[str, int]] = []
    after = run.arguments.after
    while True:
        count = min(_PAGE, limit + 1 - len(keys))  # one more than is shown tells whether there are more
        page = client.keys(run.arguments.prefix, after=after, count=count, **options)
        keys += page.keys
        if len(page.keys) < count or len(keys) > limit:
            return keys[:limit], page, len(keys) > limit
        after, options = page.keys[-1][0], {"exactly": page.as_of}


def _browse(run: Run) -> int:
    """The same of a cache of rows, with who has each key in memory."""
    with reach.client(run, routed=not run.arguments.here) as client:
        kept, more = in_memory(run, client)
    if not run.terminal:
        print_json({"keys": [_for_programs(each) for each in kept], "more": more})
        return OK if kept else MISSING
    print_table(("key", "state", "loaded", "memory", "nodes"), [_row(each) for each in kept])
    complain("what is in memory now, as of no one snapshot; `snapring get` tells what is true")
    if more:
        complain(f"there are more: --after {printable(kept[-1].key)}, or a greater --limit")
    return OK if kept else MISSING


def in_memory(run: Run, client: Client) -> tuple[list[Kept], bool]:
    """The keys, and whether there are more."""
    limit, after = run.arguments.limit, run.arguments.after
    kept: list[Kept] = []
    while True:
        count = min(_MEMORY_PAGE, limit + 1 - len(kept))
        page = client.browse(run.arguments.prefix, after=after, count=count)
        kept += page
        if len(page) < count or len(kept) > limit:
            return kept[:limit], len(kept) > limit
        after = page[-1].key


def _for_programs(kept: Kept) -> dict[str, Any]:
    held = [
        {"node": held.node, "state": _state([held]), "age_ms": round(held.age_s * 1000), "bytes": held.bytes}
        for held in kept.held
    ]
    return {"key": kept.key, "held": held}


def _row(kept: Kept) -> Sequence[str]:
    """The last loaded of its entries, the largest of their sizes."""
    return (
        printable(kept.key),
        _state(kept.held),
        _ago(min(held.age_s for held in kept.held)),
        show_size(str(max(held.bytes for held in kept.held))),
        " ".join(printable(held.node) for held in kept.held),
    )


def _state(held: Sequence[Held]) -> str:
    return "open" if any(each.open for each in held) else "ended"


def _ago(age_s: float) -> str:
    return f"{age_s:.1f} s ago" if age_s < _MINUTE_S else f"{age_s / _MINUTE_S:.0f} min ago"
