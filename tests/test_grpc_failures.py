"""Each class of errors has a canonical status, and what a client needs is in its details."""

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo

from cluster.doors.grpc.failures import CODES, code_of, status_of
from cluster.snapshots import Snapshot
from cluster.writes import Refused
from snapring.errors import (
    CallInvalid,
    ConnectionFailed,
    KeyInvalid,
    MemoUnsettled,
    Overloaded,
    SnapringError,
    TokenAhead,
    VersionMismatch,
)

OF_CLIENTS = {ConnectionFailed, CallInvalid, MemoUnsettled}
"""What only the client library raises: no node answers it."""

TREE = [
    SnapringError,
    *(
        kind
        for kind in SnapringError.__subclasses__()
        if kind.__module__ == "snapring.errors" and kind not in OF_CLIENTS
    ),
]
CODE = {
    "INTERNAL": "INTERNAL", "CONFIG_INVALID": "INTERNAL",
    "KEY_INVALID": "INVALID_ARGUMENT", "ARGUMENT_INVALID": "INVALID_ARGUMENT", "ERR": "INVALID_ARGUMENT",
    "TOKEN_INVALID": "INVALID_ARGUMENT", "VALUE_INVALID": "INVALID_ARGUMENT",
    "CACHE_UNKNOWN": "NOT_FOUND",
    "CACHE_REFUSED": "FAILED_PRECONDITION", "TOKEN_FOREIGN": "FAILED_PRECONDITION",
    "SNAPSHOT_UNAVAILABLE": "FAILED_PRECONDITION", "TOO_MANY_ROWS": "FAILED_PRECONDITION",
    "READ_ONLY": "FAILED_PRECONDITION",
    "SNAPSHOT_EXPIRED": "OUT_OF_RANGE", "VERSION_MISMATCH": "ABORTED",
    "TOKEN_AHEAD": "UNAVAILABLE", "UNAVAILABLE": "UNAVAILABLE", "NODE_STOPPING": "UNAVAILABLE",
    "CATALOG_CHANGING": "UNAVAILABLE",
    "PERMISSION_DENIED": "PERMISSION_DENIED", "UNAUTHENTICATED": "UNAUTHENTICATED",
    "OVERLOADED": "RESOURCE_EXHAUSTED",
    "DEADLINE_EXCEEDED": "DEADLINE_EXCEEDED", "QUERY_TIMEOUT": "DEADLINE_EXCEEDED",
    "QUERY_FAILED": "UNKNOWN", "WRITE_UNCERTAIN": "UNKNOWN",
}  # fmt: skip


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: str(kind.code))
def test_every_class_has_its_status(kind: type[SnapringError]) -> None:
    """None is left to its ancestor's by accident."""
    assert CODES[kind].name == CODE[kind.code]


def test_what_clients_raise_has_no_status_of_its_own() -> None:
    """A node that answered one would have a defect, and say so."""
    assert not OF_CLIENTS & CODES.keys()
    assert {code_of(kind("never")) for kind in OF_CLIENTS} == {grpc.StatusCode.INTERNAL}


def test_only_what_may_be_repeated_is_unavailable() -> None:
    """Clients and proxies repeat UNAVAILABLE by themselves: never a write that may have happened."""
    unavailable = [kind for kind in TREE if CODES[kind] is grpc.StatusCode.UNAVAILABLE]
    assert {kind.retryable for kind in unavailable} == {True}


def test_details_say_the_code_and_what_belongs_to_it() -> None:
    """A KeyInvalid its position, a VersionMismatch, of whatever class, its key and version."""
    info = ErrorInfo()
    status_of(KeyInvalid("no", position=4)).details[0].Unpack(info)
    assert (info.domain, info.reason, dict(info.metadata)) == (
        "snapring", "KEY_INVALID", {"retryable": "false", "position": "4"},
    )  # fmt: skip
    refused = Refused("settings:a", version=9, seen=Snapshot(1, 1), incarnation=1)
    status_of(refused).details[0].Unpack(info)
    assert code_of(refused) is code_of(VersionMismatch("settings:a", version=9)) is grpc.StatusCode.ABORTED
    assert (info.metadata["key"], info.metadata["version"]) == ("settings:a", "9")


def test_only_who_says_when_to_try_again_has_a_retry_info() -> None:
    """And it says that."""
    retry = RetryInfo()
    status_of(Overloaded("full", retry_after_s=0.25)).details[1].Unpack(retry)
    assert retry.retry_delay.ToTimedelta().total_seconds() == 0.25
    assert len(status_of(TokenAhead("later")).details) == 1
