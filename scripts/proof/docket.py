"""A record of replies made ready to be judged: what its tokens name, where that is, and what is not so. Pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from cluster.snapshots import Snapshot
from cluster.tokens import TokenCodec
from scripts.proof.caches import Cache
from scripts.proof.course import NOWHERE, Course
from scripts.proof.history import History
from scripts.proof.naming import Named, all_named
from scripts.proof.replies import Replies
from scripts.proof.values import Said, Values


class Docket:
    """Everything by the numbers that the record has for keys, values and tokens.

    ``falsehoods``: each token, key and value that occur together and are not so, with what is so.
    """

    def __init__(
        self, caches: Mapping[str, Cache], history: History, replies: Replies, codec: TokenCodec
    ) -> None:
        self.keys = [(key or b"").decode() for key in replies.keys]
        self.named = all_named(replies.tokens, codec)
        self.course = Course(history, _snapshots(self.named))
        self.places = [self._place(named) for named in self.named]
        self.max_staleness_s = [_max_staleness_s(key, caches) for key in self.keys]
        self._values = Values(caches, self.keys, list(replies.values))
        self.falsehoods = self._found(history, replies)

    def falsehood(self, key: int, value: int, as_of: int) -> str:
        """Why this is not so, in words."""
        if self.places[as_of] == NOWHERE:
            return "which is no snapshot that the database had"
        truth = self.falsehoods[as_of, key, value]
        return f"the node said {self._values.found(value)!r}, the database held {truth!r}"

    def _place(self, named: Named | str) -> int:
        if isinstance(named, str) or not isinstance(named.position, Snapshot):
            return NOWHERE
        return self.course.place(named.incarnation, named.position)

    def _found(self, history: History, replies: Replies) -> dict[tuple[int, int, int], object]:
        columns = replies.columns
        said: dict[tuple[int, Snapshot], set[Said]] = defaultdict(set)
        for token, key, value in set(zip(columns["as_of"], columns["key"], columns["value"], strict=True)):
            named = self.named[token]
            if isinstance(named, Named) and isinstance(named.position, Snapshot):
                said[named.incarnation, named.position].add((key, value))
        numbers = {named: number for number, named in enumerate(self.named)}
        return {
            (numbers[Named(incarnation, snapshot)], *each): truth
            for incarnation, snapshot, each, truth in self._values.false(history, self.course, said)
        }


def _snapshots(named: Sequence[Named | str]) -> Mapping[int, list[Snapshot]]:
    found: dict[int, list[Snapshot]] = defaultdict(list)
    for each in named:
        if isinstance(each, Named) and isinstance(each.position, Snapshot):
            found[each.incarnation].append(each.position)
    return found


def _max_staleness_s(key: str, caches: Mapping[str, Cache]) -> float:
    cache = caches.get(key.partition(":")[0])
    return cache.max_staleness_s if cache is not None else 0.0
