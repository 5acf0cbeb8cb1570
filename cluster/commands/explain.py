"""``snapring explain CACHE``: what its entries depend on, and why."""

from cluster.analysis.catalog import Analysis, analyse
from cluster.analysis.explain import as_dict, as_text
from cluster.commands.database import Connection, with_database
from cluster.commands.outcomes import FOUND, OK
from cluster.commands.run import CallError, Run, complain, print_json, print_line
from cluster.config import CacheConfig, NodeConfig
from snapring.errors import CacheRefused


def run(run: Run) -> int:
    """Print the dependencies of one cache; the exit code is 1 if the cache is refused."""

    async def work(connection: Connection, config: NodeConfig) -> int:
        cache = config.caches.get(run.arguments.cache)
        if cache is None:
            known = ", ".join(config.caches) or "none"
            raise CallError(f"there is no cache {run.arguments.cache}; configured: {known}")
        try:
            analysis = await analyse(connection, cache.select, depends=cache.depends)
        except CacheRefused as refusal:
            if run.json:
                print_json({"cache": cache.name, "refused": str(refusal)})
            complain(f"cache {cache.name} is refused: {refusal}")
            return FOUND
        _report(run, cache, analysis)
        return OK

    return with_database(run, work)


def _report(run: Run, cache: CacheConfig, analysis: Analysis) -> None:
    if run.json:
        print_json(as_dict(cache.name, analysis))
    else:
        print_line(as_text(cache.name, analysis))
