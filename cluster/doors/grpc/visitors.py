"""Whose call it is: which keys his texts mean, what he may be told, and how much of the door is left to him."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import Final, Protocol, TypeVar

from cluster.access.gate import Caller
from cluster.access.identity import Role
from cluster.access.quotas import Allowance, part
from cluster.config import GrpcConfig, TenantConfig
from snapring.errors import Overloaded
from snapring.keys import Key, parse

T = TypeVar("T")
Find = Callable[[bytes], T | None]
"""What may know something about some bytes at once."""

_UNBOUNDED: Final = TenantConfig(in_flight=None)
_RETRY_S: Final = 1.0


class Visitor(Protocol):
    """Somebody whose calls are answered. ``caller`` is what he has proved to be, where the door asks."""

    @property
    def caller(self) -> Caller | None:
        """None where anybody may do anything."""

    @property
    def looks_inside(self) -> bool:
        """Whether he is told of the whole node, other tenants' use of it included."""

    def key(self, text: bytes) -> tuple[Key, str | None]:
        """The key that he means, and its token. Raises `KeyInvalid`, `PermissionDenied`."""

    def finder(self, find: Find[T]) -> Find[T]:
        """``find``, which knows canonical keys, for his texts."""

    def paid(self, answer: Find[T]) -> Find[T]:
        """``answer`` for as long as his rate lasts; what it does not know has cost nothing."""

    def take(self, requests: int) -> None:
        """So many requests of his begin. Raises `Overloaded`."""

    def enter(self) -> None:
        """A call of his waits. Raises `Overloaded`."""

    def leave(self) -> None:
        """It waits no longer."""

    def watching(self) -> AbstractContextManager[None]:
        """The time of one watch. Raises `Overloaded`."""

    def prefixes(self, asked: Sequence[bytes]) -> Sequence[bytes]:
        """The beginnings of canonical keys that he means. Raises `PermissionDenied`."""

    def told(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those of canonical ``keys`` that he may hear of, as he writes them."""


class Anybody:
    """Who calls a door that asks for no API key: he names tenants himself, and shares everything with everybody."""

    caller: Final = None
    looks_inside: Final = True

    def key(self, text: bytes) -> tuple[Key, str | None]:
        """As it says."""
        return parse(text)

    def finder(self, find: Find[T]) -> Find[T]:
        """The same."""
        return find

    def paid(self, answer: Find[T]) -> Find[T]:
        """The same."""
        return answer

    def take(self, requests: int) -> None:
        """As many as he likes."""

    def enter(self) -> None:
        """As long as there is room for anybody."""

    def leave(self) -> None:
        """Nobody counts."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Nobody counts."""
        yield

    def prefixes(self, asked: Sequence[bytes]) -> Sequence[bytes]:
        """The same."""
        return asked

    def told(self, keys: Iterable[bytes]) -> list[bytes]:
        """All of them."""
        return [*keys]


class Known:
    """The holder of a credential: one tenant's keys, and that tenant's part of the door's ``room``."""

    def __init__(self, caller: Caller, room: "Room") -> None:
        self.caller: Final = caller
        self._room = room
        self._reach, self._allowance = caller.reach, caller.allowance

    @property
    def looks_inside(self) -> bool:
        """Only an administrator."""
        return self.caller.identity.role >= Role.ADMIN

    def key(self, text: bytes) -> tuple[Key, str | None]:
        """His tenant's, whatever the text says."""
        return self._reach.key(text)

    def finder(self, find: Find[T]) -> Find[T]:
        """His tenant's."""
        return self._reach.finder(find)

    def paid(self, answer: Find[T]) -> Find[T]:
        """One request for each answer, without asking for the time while there is credit."""
        allowance = self._allowance
        if not allowance.metered:
            return answer

        def metered(asked: bytes) -> T | None:
            if allowance.credit < 1.0:
                return None
            found = answer(asked)
            if found is not None:
                allowance.credit -= 1.0
            return found

        return metered

    def take(self, requests: int) -> None:
        """Of the tenant's rate."""
        self._allowance.take(requests)

    def enter(self) -> None:
        """Within what the tenant may have in flight anywhere, and its part of this door's calls."""
        self._allowance.enter()
        try:
            self._room.calls.enter()
        except Overloaded:
            self._allowance.leave()
            raise

    def leave(self) -> None:
        """Both."""
        self._room.calls.leave()
        self._allowance.leave()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within the tenant's part of this door's watches."""
        self._room.watches.enter()
        try:
            yield
        finally:
            self._room.watches.leave()

    def prefixes(self, asked: Sequence[bytes]) -> Sequence[bytes]:
        """His tenant's; without any, all of his tenant's keys."""
        return [self._reach.prefix(text) for text in asked or (b"",)]

    def told(self, keys: Iterable[bytes]) -> list[bytes]:
        """His tenant's, without its name."""
        return [text for key in keys if (text := self._reach.own(key)) is not None]


class Room:
    """One tenant's part of the calls that wait at a door, and of its watches."""

    def __init__(self, quota: TenantConfig, config: GrpcConfig) -> None:
        self.calls, self.watches = (
            Allowance(TenantConfig(in_flight=part(quota, places)), monotonic)
            for places in (config.max_calls, config.max_watches)
        )


class Rooms:
    """Each tenant's, all its credentials together."""

    def __init__(self, quota: Callable[[str], TenantConfig], config: GrpcConfig) -> None:
        self._quota = quota
        self._config = config
        self._rooms: dict[str, Room] = {}

    def visitor(self, caller: Caller) -> Known:
        """``caller``, in the room of his tenant."""
        tenant = caller.identity.tenant
        room = self._rooms.get(tenant)
        if room is None:
            room = self._rooms[tenant] = Room(self._quota(tenant), self._config)
        return Known(caller, room)
