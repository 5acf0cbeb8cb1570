"""Statements that a connection has prepared stay prepared."""

from cluster.pipeline import Statement
from cluster.plans import Plans
from cluster.postgres import Sessions
from nodes import captured, config


async def test_a_connection_analyses_one_query_after_it_has_loaded_another(database: str) -> None:
    """Also a node's first, which has asked for the settings that every later one pins."""
    settings = config(database)
    async with captured(database):
        connection = await Sessions(settings.postgres).open("snapring test")
        async with connection:
            plans = Plans(settings.caches)
            for cache in settings.caches:
                await plans.get(cache, connection)
                ((_, answer),) = await connection.round_trip(
                    [[Statement(b"BEGIN", ()), Statement(b"SELECT 1", ())]]
                )
                await connection.round_trip([[Statement(b"COMMIT", ())]])
                assert answer.get_value(0, 0) == b"1"
