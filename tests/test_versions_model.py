"""Versions of store caches against a dumb model: any order of transactions, savepoints, looks and sweeps."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import KEYS, Ledger
from servers import Server
from writes import installed

DEEDS = st.lists(
    st.tuples(
        st.sampled_from(KEYS),
        st.one_of(st.none(), st.binary(max_size=3)),
        st.sampled_from(("nothing", "nothing", "nothing", "current", "absent", "another")),
    ),
    min_size=1,
    max_size=2,
    unique_by=lambda deed: deed[0],
)
WRITES = st.tuples(st.just("write"), st.integers(0, 2), DEEDS)
STEPS = st.one_of(
    WRITES,
    st.tuples(
        st.sampled_from(("begin", "begin", "savepoint", "undo", "commit", "rollback")), st.integers(0, 2)
    ),
    WRITES,
    st.tuples(st.just("look")),
    WRITES,
    st.tuples(st.just("sweep")),
)


@pytest.fixture(scope="module")
def ledger(server: Server) -> Iterator[Ledger]:
    """A ledger with three sessions, on a database of its own."""
    with server.database() as name:
        asyncio.run(_install(server.dsn(name)))
        opened = Ledger(server.dsn(name), sessions=3)
        yield opened
        opened.close()


async def _install(url: str) -> None:
    async with installed(url):
        pass


@settings(max_examples=100)
@given(st.lists(STEPS, min_size=20, max_size=60))
def test_history_says_what_was_seen_at_every_snapshot(
    ledger: Ledger, steps: list[tuple[object, ...]]
) -> None:
    """Each write has the outcome foretold, and every snapshot is read as it was, or refused for its age."""
    ledger.begin_anew()
    for action, *rest in steps:
        if action == "write":
            ledger.write(ledger.sessions[rest[0]], rest[1])  # type: ignore[call-overload, arg-type]
        elif rest:
            getattr(ledger, str(action))(ledger.sessions[rest[0]])  # type: ignore[call-overload]
        else:
            getattr(ledger, str(action))()
    for session in ledger.sessions:
        ledger.commit(session)
    ledger.look()
    ledger.verify()
