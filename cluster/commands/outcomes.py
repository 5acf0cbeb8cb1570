"""What the exit codes of the program mean, and what to try after an error. Pure."""

from typing import Final

from snapring.errors import (
    ArgumentInvalid,
    CacheUnknown,
    CallInvalid,
    CommandInvalid,
    ConfigInvalid,
    ConnectionFailed,
    KeyInvalid,
    PermissionDenied,
    ReadOnly,
    SnapringError,
    SnapshotExpired,
    SnapshotUnavailable,
    TokenAhead,
    TokenForeign,
    TokenInvalid,
    Unauthenticated,
    ValueInvalid,
    VersionMismatch,
    WriteUncertain,
)

OK: Final = 0
FOUND: Final = 1
MISSING: Final = 1
USAGE: Final = 2
LATER: Final = 3
REFUSED: Final = 4
UNMET: Final = 5
UNCERTAIN: Final = 6
FAILED: Final = 7
INTERRUPTED: Final = 130

MEANINGS: Final = {
    OK: "all is well; what was asked for is there",
    MISSING: "no such row or key; `check`, `explain` and `status`: problems were found",
    USAGE: "the call or the configuration is wrong: words, keys, caches, arguments, values, files",
    LATER: "no answer now; the same call may succeed later: nobody there, overloaded, out of time, Postgres out of reach",
    REFUSED: "the API key is missing, not valid, or does not allow this",
    UNMET: "what the call demanded does not hold: another version, a token or snapshot that is of no use any more",
    UNCERTAIN: "a write whose outcome is unknown: it may have happened, or may yet",
    FAILED: "it failed otherwise: the message says how",
    INTERRUPTED: "interrupted",
}

_KINDS: Final[dict[int, tuple[type[SnapringError], ...]]] = {
    USAGE: (
        ArgumentInvalid, CacheUnknown, CallInvalid, CommandInvalid, ConfigInvalid, KeyInvalid, ReadOnly, TokenInvalid,
        ValueInvalid,
    ),
    REFUSED: (PermissionDenied, Unauthenticated),
    UNMET: (SnapshotExpired, SnapshotUnavailable, TokenForeign, VersionMismatch),
    UNCERTAIN: (WriteUncertain,),
}  # fmt: skip

_NEXT: Final[dict[type[SnapringError], str]] = {
    CacheUnknown: "`snapring caches` lists those there are",
    ConnectionFailed: "name a node that runs: --node HOST:PORT or $SNAPRING_NODE (`watch`: --grpc); behind TLS --ca-file too",
    PermissionDenied: "show a key of a higher role, or of the tenant in question: --key-file",
    SnapshotExpired: "ask for a newer token, or raise retention.history",
    SnapshotUnavailable: "ask for --at-least that token, or for a newer one exactly",
    TokenAhead: "the transaction has not ended, or the node is behind: try again, with a longer --timeout",
    TokenForeign: "take a new one: `snapring token`",
    TokenInvalid: "copy it whole; `snapring token` gives a new one",
    Unauthenticated: "show one: --key-file FILE, $SNAPRING_KEY_FILE or $SNAPRING_API_KEY; `snapring key new` makes one",
}


def code_of(error: SnapringError) -> int:
    """The exit code after ``error``."""
    for code, kinds in _KINDS.items():
        if isinstance(error, kinds):
            return code
    return LATER if error.retryable else FAILED


def next_step(error: SnapringError) -> str | None:
    """What to try next, where the error does not say so itself."""
    return _NEXT.get(type(error))


def table() -> str:
    """The exit codes in Markdown, for the README."""
    return "\n".join(
        ["| code | meaning |", "|---|---|", *(f"| {code} | {what} |" for code, what in MEANINGS.items())]
    )
