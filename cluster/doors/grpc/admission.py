"""Who calls is asked of each call before its request is read, so that strangers hold nothing and cost little.

Whoever is let in gets methods of his own: they know whose keys he means. `cluster.access.needs` says what each method
demands, and one that it does not name is refused to everybody.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import grpc

from cluster.access.gate import Gate
from cluster.access.needs import OPEN_RPCS
from cluster.doors.grpc.calls import Calls, Context
from cluster.doors.grpc.visitors import Rooms, Visitor

Methods = Mapping[str, Any]
"""Handlers of methods, each by its service and name: ``snapring.v1.Snapring/Get``."""

_MOST_KNOWN: Final = 1024
"""For so many callers methods are kept; for more they are made anew."""


class Open(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """``methods`` for everybody."""

    def __init__(self, methods: Methods) -> None:
        self._methods = {f"/{name}": handler for name, handler in methods.items()}

    def service(self, details: Any) -> Any:
        """The handler of a call; None where there is no such method."""
        return self._methods.get(details.method)


class Guarded(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """What ``methods_for`` makes for each caller that ``gate`` lets in; the others' calls are refused."""

    def __init__(
        self, gate: Gate, calls: Calls, rooms: Rooms, methods_for: Callable[[Visitor], Methods]
    ) -> None:
        self._gate = gate
        self._calls = calls
        self._rooms = rooms
        self._methods_for = methods_for
        self._known: dict[object, Methods] = {}

    def service(self, details: Any) -> Any:
        """The handler of a call, of whatever comes of asking who calls; None where there is no such method."""
        name = details.method[1:]
        if name in OPEN_RPCS:
            return None
        try:
            caller = self._gate.admit(
                name.removeprefix("snapring.v1.Snapring/"), shown(details.invocation_metadata), 0
            )
        except Exception as error:  # noqa: BLE001  # a defect in one call must not reach the next
            return self._refusing(error, details.method)
        methods = self._known.get(caller)
        if methods is None:
            if len(self._known) >= _MOST_KNOWN:
                del self._known[next(iter(self._known))]
            methods = self._known[caller] = self._methods_for(self._rooms.visitor(caller))
        return methods.get(name)

    def review(self) -> None:
        """End what lasts of whom the gate no longer upholds, and know everybody anew."""
        self._known.clear()
        self._calls.expel(self._gate.upholds)

    def _refusing(self, error: Exception, method: str) -> Any:
        async def refuse(_requests: object, context: Context) -> None:
            self._calls.tell(method.rpartition("/")[2], context, error)
            await self._calls.refuse(context, error)

        # A handler of streams is called at once; any other waits for a request, which a stranger need not send.
        return grpc.stream_stream_rpc_method_handler(refuse)


def shown(metadata: Iterable[tuple[str, Any]]) -> str | None:
    """The one ``authorization`` in a call's metadata; None if there is none, or more than one."""
    found = [value for name, value in metadata if name == "authorization"]
    return found[0] if len(found) == 1 and isinstance(found[0], str) else None
