"""Counts, inside a node, questions of its peers that it asked another node: there must be none.

What answers a peer runs in a context of its own, in which no question may be sent to anybody. INFO tells the count
in a section ``proof``.
"""

import os
from collections.abc import Coroutine, Mapping
from contextvars import ContextVar
from typing import Any, Final

SECTION: Final = "proof"
FIELD: Final = "second_hops"

_for_a_peer: Final = ContextVar("for a peer", default=False)


def watch() -> None:
    """Count in this process from now on."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # before gRPC is imported, as `cluster.serve` does
    from cluster.peering.answering import Answering  # noqa: PLC0415
    from cluster.peering.forwarding import Forwarding  # noqa: PLC0415
    from cluster.peering.messages import GET  # noqa: PLC0415
    from peers.outbox import Outbox  # noqa: PLC0415

    answer, enter, describe = Answering.__call__, Outbox.enter, Forwarding.describe
    found = 0

    def answering(self: Answering, *asked: Any) -> bytes | Coroutine[Any, Any, bytes]:
        answered = answer(self, *asked)
        return answered if isinstance(answered, bytes) else _marked(answered)

    def entering(self: Outbox, pending: Any, *rest: Any) -> Any:
        nonlocal found
        call = getattr(pending, "call", pending)
        found += _for_a_peer.get() and call.kind == GET
        return enter(self, pending, *rest)

    def describing(self: Forwarding) -> Mapping[str, Mapping[str, object]]:
        return {**describe(self), SECTION: {FIELD: found}}

    setattr(Answering, "__call__", answering)  # noqa: B010
    setattr(Outbox, "enter", entering)  # noqa: B010
    setattr(Forwarding, "describe", describing)  # noqa: B010


async def _marked(work: Coroutine[Any, Any, bytes]) -> bytes:
    _for_a_peer.set(True)
    return await work
