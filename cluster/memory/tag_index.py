"""Which open entries depend on a tag. Pure."""

from cluster.entries import Entry


class TagIndex:
    """Tag -> entries. Most key-grain tags have one entry, so a set is made only for the second."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[int, Entry | set[Entry]] = {}

    def __len__(self) -> int:
        """How many tags have an entry."""
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """Let ``entry`` answer to its tags."""
        entries = self._entries
        for tag in entry.tags:
            held = entries.setdefault(tag, entry)
            if isinstance(held, set):
                held.add(entry)
            elif held is not entry:
                entries[tag] = {held, entry}

    def discard(self, entry: Entry) -> None:
        """Let ``entry`` answer to none of its tags; nothing happens where it did not."""
        entries = self._entries
        for tag in entry.tags:
            held = entries.get(tag)
            if held is entry:
                del entries[tag]
            elif isinstance(held, set):
                held.discard(entry)
                if len(held) == 1:
                    entries[tag] = held.pop()

    def entries(self, tag: int) -> tuple[Entry, ...]:
        """Those that depend on ``tag``, as of now."""
        held = self._entries.get(tag, ())
        return (held,) if isinstance(held, Entry) else tuple(held)
