"""What an error that came instead of a peer's answer means: one row for each, and the right one."""

from collections.abc import Iterator

import pytest

from cluster.peering.verdicts import VERDICTS, Verdict, blames_peer, verdict
from peers.errors import PeerSilent, PeerUnreachable
from snapring.errors import (
    DeadlineExceeded,
    NodeStopping,
    Overloaded,
    QueryTimeout,
    SnapringError,
    Unavailable,
)


def tree(kind: type[SnapringError] = SnapringError) -> Iterator[type[SnapringError]]:
    """Every error of clients and peers."""
    yield kind
    for each in kind.__subclasses__():
        yield from tree(each)


def test_every_error_has_a_row() -> None:
    """None is decided by chance when one is added."""
    ours = {kind for kind in tree() if kind.__module__ in ("snapring.errors", "peers.errors")}
    assert ours == set(VERDICTS)


def test_what_a_client_may_get_is_about_the_request() -> None:
    """No failure of a peer's, of a hop's or of a peer's database is among it."""
    answers = {kind.code for kind, found in VERDICTS.items() if found is Verdict.ANSWER}
    assert answers == {
        "ARGUMENT_INVALID", "CACHE_REFUSED", "CATALOG_CHANGING", "KEY_INVALID", "QUERY_FAILED", "QUERY_TIMEOUT",
        "SNAPSHOT_EXPIRED", "SNAPSHOT_UNAVAILABLE", "TOKEN_AHEAD", "TOO_MANY_ROWS",
    }  # fmt: skip


@pytest.mark.parametrize(("reachable", "found"), [(True, Verdict.NEXT), (False, Verdict.HERE)])
def test_a_peers_trouble_with_postgres_is_not_ones_own(reachable: bool, found: Verdict) -> None:
    """Others are asked where Postgres can be reached; else this node knows at once what to say."""
    assert verdict(Unavailable("gone"), reachable=reachable) is found


@pytest.mark.parametrize(
    ("error", "blamed"),
    [
        (PeerUnreachable("gone"), True),
        (SnapringError("a defect"), True),
        (PeerSilent("slow"), False),
        (DeadlineExceeded("slow"), False),
        (Overloaded("full", retry_after_s=1.0), False),
        (NodeStopping("leaving"), False),
        (QueryTimeout("slow"), False),
        (Unavailable("no database"), False),
    ],
)
def test_only_what_is_the_peers_fault_counts_against_it(error: SnapringError, blamed: bool) -> None:
    """Not the request's, nor that there was too little time, nor that it said what is the matter."""
    assert blames_peer(error) is blamed
