"""``snapring keys PREFIX``: the keys of a store cache, in their order, at one snapshot."""

from typing import Final

from cluster.commands import reach
from cluster.commands.get import demanded
from cluster.commands.outcomes import MISSING, OK
from cluster.commands.run import Run, complain, print_json, print_table
from cluster.commands.values import printable
from snapring import Client, Page

_PAGE: Final = 500


def run(run: Run) -> int:
    """Print at most ``--limit`` keys with their versions: code 1 if there are none."""
    with reach.client(run) as client:
        keys, last, more = pages(run, client)
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
