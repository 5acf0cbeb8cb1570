"""Snapring's errors as canonical statuses with details. Pure."""

from datetime import timedelta
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from snapring.errors import (
    ArgumentInvalid,
    CacheRefused,
    CacheUnknown,
    CatalogChanging,
    CommandInvalid,
    ConfigInvalid,
    DeadlineExceeded,
    KeyInvalid,
    NodeStopping,
    Overloaded,
    PermissionDenied,
    QueryFailed,
    QueryTimeout,
    ReadOnly,
    SnapringError,
    SnapshotExpired,
    SnapshotUnavailable,
    TokenAhead,
    TokenForeign,
    TokenInvalid,
    TooManyRows,
    Unauthenticated,
    Unavailable,
    ValueInvalid,
    VersionMismatch,
    WriteUncertain,
)

DOMAIN: Final = "snapring"
CODES: Final[dict[type[SnapringError], grpc.StatusCode]] = {
    SnapringError: grpc.StatusCode.INTERNAL,
    ConfigInvalid: grpc.StatusCode.INTERNAL,
    ArgumentInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    CommandInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    KeyInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    TokenInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    ValueInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    CacheUnknown: grpc.StatusCode.NOT_FOUND,
    CacheRefused: grpc.StatusCode.FAILED_PRECONDITION,
    ReadOnly: grpc.StatusCode.FAILED_PRECONDITION,
    SnapshotUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    TokenForeign: grpc.StatusCode.FAILED_PRECONDITION,
    TooManyRows: grpc.StatusCode.FAILED_PRECONDITION,
    SnapshotExpired: grpc.StatusCode.OUT_OF_RANGE,
    VersionMismatch: grpc.StatusCode.ABORTED,
    # Clients and proxies repeat these by themselves, so that nothing else may have them.
    CatalogChanging: grpc.StatusCode.UNAVAILABLE,
    NodeStopping: grpc.StatusCode.UNAVAILABLE,
    TokenAhead: grpc.StatusCode.UNAVAILABLE,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    QueryTimeout: grpc.StatusCode.DEADLINE_EXCEEDED,
    QueryFailed: grpc.StatusCode.UNKNOWN,
    WriteUncertain: grpc.StatusCode.UNKNOWN,
}
"""The status of each class of errors; of one that is not here, that of its nearest ancestor."""


def code_of(error: SnapringError) -> grpc.StatusCode:
    """The canonical code of ``error``."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def status_of(error: SnapringError) -> Status:
    """``error`` as it travels: code, message, an ErrorInfo, and a RetryInfo where it says when to try again."""
    info = ErrorInfo(domain=DOMAIN, reason=error.code, metadata=_metadata(error))
    details = [_packed(info)]
    if isinstance(error, Overloaded):
        retry = RetryInfo()
        retry.retry_delay.FromTimedelta(timedelta(seconds=error.retry_after_s))
        details.append(_packed(retry))
    return Status(code=code_of(error).value[0], message=str(error), details=details)


def _metadata(error: SnapringError) -> dict[str, str]:
    metadata = {"retryable": "true" if error.retryable else "false"}
    if isinstance(error, KeyInvalid):
        metadata["position"] = str(error.position)
    if isinstance(error, VersionMismatch):
        metadata |= {"key": error.key, "version": str(error.version)}
    return metadata


def _packed(message: Message) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed
