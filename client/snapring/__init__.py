"""What an application uses of a Snapring cluster.

`Client` and `AsyncClient` read and write; `ticket` names a transaction of the application's own; keys and errors
are what every part of Snapring shares. The clients are imported when they are first used: nodes need keys and
errors alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from snapring.errors import SnapringError
from snapring.keys import Key, parse, slot_of

if TYPE_CHECKING:
    from snapring.async_client import AsyncClient
    from snapring.client import Client
    from snapring.credentials import Tls
    from snapring.replies import Held, Kept, Page, Reply, Written
    from snapring.session import Session
    from snapring.tickets import ticket
    from snapring.writing import Delete, Put

_HOMES: Final = {
    "AsyncClient": "snapring.async_client",
    "Client": "snapring.client",
    "Delete": "snapring.writing",
    "Held": "snapring.replies",
    "Kept": "snapring.replies",
    "Page": "snapring.replies",
    "Put": "snapring.writing",
    "Reply": "snapring.replies",
    "Session": "snapring.session",
    "Tls": "snapring.credentials",
    "Written": "snapring.replies",
    "ticket": "snapring.tickets",
}

__all__ = [
    "AsyncClient",
    "Client",
    "Delete",
    "Held",
    "Kept",
    "Key",
    "Page",
    "Put",
    "Reply",
    "Session",
    "SnapringError",
    "Tls",
    "Written",
    "parse",
    "slot_of",
    "ticket",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'snapring' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
