"""A proxy that counts who comes through: how often PostgreSQL is knocked at, and by how many at once."""

from collections import Counter
from time import monotonic

from scripts.proof.proxy import Proxy


class Turnstile(Proxy):
    """``knocks``: when each connection was attempted, monotonic; what became of it makes no difference.

    ``peaks``: the most connections there were at once, by application name, and under ``""`` of all together.
    """

    def __init__(self, target: tuple[str, int], *, port: int = 0) -> None:
        super().__init__(target, port=port)
        self.knocks: list[float] = []
        self.peaks: Counter[str] = Counter()

    def joined(self, link: object) -> None:
        """See `Proxy`."""
        self.knocks.append(monotonic())
        super().joined(link)  # type: ignore[arg-type]
        self.look()

    def left(self, link: object) -> None:
        """See `Proxy`."""
        self.look()
        super().left(link)  # type: ignore[arg-type]

    def look(self) -> None:
        """Take note of who is there: a name is known some time after its connection came."""
        names = self.names
        for name, here in Counter(names).items():
            self.peaks[name] = max(self.peaks[name], here)
        self.peaks[""] = max(self.peaks[""], len(names))
