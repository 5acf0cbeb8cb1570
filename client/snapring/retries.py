"""What may be tried again after what. Pure."""

import re
from typing import Final

from snapring.course import Broken
from snapring.errors import (
    CatalogChanging,
    ConnectionFailed,
    DeadlineExceeded,
    NodeStopping,
    Overloaded,
    SnapringError,
    Unavailable,
    WriteUncertain,
)
from snapring.routes import Address

ELSEWHERE: Final = (NodeStopping, Overloaded, Unavailable, CatalogChanging)
"""Refusals after which nothing was written, and which another node may not have. What took its time is not among
them: it would take it again."""

_PREAMBLE: Final = re.compile(r"^Error -?\d+ connecting to \S+:\d+\. ")
_NOBODY: Final = "is a node listening there, reachable from here?"
_QUESTIONS: Final = {
    "CERTIFICATE_VERIFY_FAILED": "do ca_file and server_name fit the node's certificate?",
    "[SSL: ": "does the node speak TLS there, as this client does?",
    "Protocol error": "is that the RESP door of a node?",
    "Connection closed": "does it want TLS, or is it no node's RESP door?",
}
"""What to look at, by what is in a message of redis-py, OpenSSL or hiredis."""


def failure(broken: Broken, address: Address, *, write: bool) -> SnapringError:
    """What the caller is told of a broken exchange, if it is not tried again."""
    if broken.sent and write:
        return WriteUncertain(
            f"the write was sent to {address}, and its outcome did not come ({broken}): it may have happened, or"
            " may yet, unless it demanded a version that is gone by then; read the key, strong, to find out"
        )
    if broken.late and broken.sent:
        return DeadlineExceeded(f"{address} did not answer in time ({broken}): allow more with timeout_s")
    told = str(broken)
    question = next((question for sign, question in _QUESTIONS.items() if sign in told), _NOBODY)
    reason = _PREAMBLE.sub("", told).rstrip(".")
    return ConnectionFailed(f"{address}: {reason[:1].lower()}{reason[1:]}; {question}")


def may_repeat(error: SnapringError) -> bool:
    """Whether a request that was refused with ``error`` may be sent again."""
    return isinstance(error, ELSEWHERE)


def rest_s(error: SnapringError, *, others: bool) -> float:
    """How long to wait before the next attempt; not at all where others can be asked."""
    return 0.0 if others or not isinstance(error, Overloaded) else error.retry_after_s
