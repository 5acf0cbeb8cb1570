"""Everything Snapring can answer instead of a value.

One small tree. ``code`` is what travels: the first word of a RESP error, the reason of a gRPC status.
The message says what happened and what to do about it. ``retryable`` says whether the same request can
succeed later without anyone changing it.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class SnapringError(Exception):
    """Any refusal or failure of Snapring."""

    code: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are the same error, whatever its class is made of."""
        return _remade, (type(self), self.args, self.__dict__)


class KeyInvalid(SnapringError):
    """The key text does not follow the key grammar; ``position`` is the byte at which it breaks."""

    code = "KEY_INVALID"

    def __init__(self, message: str, *, position: int) -> None:
        super().__init__(f"{message} at byte {position}")
        self.position = position


class CacheUnknown(SnapringError):
    """No cache of that name is configured on this node."""

    code = "CACHE_UNKNOWN"


class CacheRefused(SnapringError):
    """The cache is configured, but its SQL cannot be cached exactly; the message names the reason."""

    code = "CACHE_REFUSED"


class ArgumentInvalid(SnapringError):
    """Wrong number of arguments, or one that does not cast to its parameter's type."""

    code = "ARGUMENT_INVALID"


class TokenInvalid(SnapringError):
    """The token is malformed or its signature does not match this cluster's secret."""

    code = "TOKEN_INVALID"


class TokenForeign(SnapringError):
    """The token belongs to another incarnation of the database: read again without it."""

    code = "TOKEN_FOREIGN"


class TokenAhead(SnapringError):
    """The database has not reached the token within the bounded wait."""

    code = "TOKEN_AHEAD"
    retryable = True


class SnapshotUnavailable(SnapringError):
    """No entry is known to be true at exactly the snapshot asked for."""

    code = "SNAPSHOT_UNAVAILABLE"


class SnapshotExpired(SnapringError):
    """The snapshot asked for is older than the history that is kept."""

    code = "SNAPSHOT_EXPIRED"


class VersionMismatch(SnapringError):
    """A key is not at the version that a write demanded, so nothing of the write was done."""

    code = "VERSION_MISMATCH"

    def __init__(self, key: str, *, version: int) -> None:
        there = f"at version {version}" if version else "not there"
        super().__init__(f"{key} is {there}: nothing was written; read it again and decide anew")
        self.key = key
        self.version = version


class WriteUncertain(SnapringError):
    """The write was sent, but whether it was committed is unknown."""

    code = "WRITE_UNCERTAIN"


class ValueInvalid(SnapringError):
    """A value, or the number of keys in one write, is beyond what the node takes."""

    code = "VALUE_INVALID"


class TooManyRows(SnapringError):
    """The query returned more rows than the cache's ``max_rows``."""

    code = "TOO_MANY_ROWS"


class QueryFailed(SnapringError):
    """Postgres ran the cache's query and reported an error."""

    code = "QUERY_FAILED"


class QueryTimeout(SnapringError):
    """Postgres cancelled the cache's query at ``statement_timeout``."""

    code = "QUERY_TIMEOUT"
    retryable = True


class Unavailable(SnapringError):
    """Postgres is out of reach and no entry in memory satisfies the request."""

    code = "UNAVAILABLE"
    retryable = True


class CatalogChanging(SnapringError):
    """DDL follows on DDL faster than the cache's query can be analysed anew."""

    code = "CATALOG_CHANGING"
    retryable = True


class Overloaded(SnapringError):
    """A bounded queue is full; ``retry_after_s`` is when to try again, in seconds."""

    code = "OVERLOADED"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(f"{message}; retry after {retry_after_s:g} s")
        self.retry_after_s = retry_after_s


class DeadlineExceeded(SnapringError):
    """The request's own deadline passed before an answer could be had."""

    code = "DEADLINE_EXCEEDED"
    retryable = True


class NodeStopping(SnapringError):
    """This node is shutting down: ask another."""

    code = "NODE_STOPPING"
    retryable = True


class ReadOnly(SnapringError):
    """A write was sent to a cache that only reads."""

    code = "READ_ONLY"


class Unauthenticated(SnapringError):
    """The node wants to know who asks: no credential was shown, or one that is not valid."""

    code = "UNAUTHENTICATED"


class PermissionDenied(SnapringError):
    """The credential does not allow this: its role is too low, or the key is another tenant's."""

    code = "PERMISSION_DENIED"


class CommandInvalid(SnapringError):
    """The command is unknown or its words do not fit its form."""

    code = "ERR"


class ConnectionFailed(SnapringError):
    """No node could be reached, or the connection broke before the answer came. Raised by clients.

    Nothing was written: a write that may have been is `WriteUncertain`.
    """

    code = "CONNECTION_FAILED"
    retryable = True


class CallInvalid(SnapringError):
    """A call of the client library makes no sense, so nothing was sent. Raised by clients."""

    code = "CALL_INVALID"


class MemoUnsettled(SnapringError):
    """What a memoised function reads changes faster than it computes. Raised by clients."""

    code = "MEMO_UNSETTLED"
    retryable = True


class ConfigInvalid(SnapringError):
    """The configuration has errors; ``problems`` lists every one of them, a line each."""

    code = "CONFIG_INVALID"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _remade(kind: type[SnapringError], args: tuple[Any, ...], state: Mapping[str, Any]) -> SnapringError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error
