"""The ordinary node, told who the others are by a file that can change, and if asked to, who owns everything."""

import argparse
import asyncio
import sys
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from pathlib import Path
from random import Random
from time import monotonic
from typing import Final

from cluster.cli import main as snapring
from cluster.peering import place
from peers.discovery.dns import DnsConfig
from peers.discovery.forms import StaticForm, parse
from peers.discovery.last_good import LastGood
from peers.members import Member, Members
from peers.ring import Ring
from snapring.keys import SLOTS

_DNS: Final = DnsConfig()


def main() -> int:
    """Run ``snapring node`` with the arguments that are not for this program."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=False, allow_abbrev=False)
    parser.add_argument("--view", type=Path, help="a file with the address form of all members")
    parser.add_argument("--owner", help="who owns every slot, of which nobody is the backup")
    parsed, words = parser.parse_known_args()
    if parsed.view:
        place.discovery = lambda _: Written(parsed.view, Random())  # type: ignore[attr-defined, assignment]
    if parsed.owner:
        _give_all_to(parsed.owner)
    return snapring(["node", *words])


class Written:
    """A discovery that looks into ``file`` as often as DNS is asked, so that the nodes differ for a while."""

    def __init__(self, file: Path, random: Random) -> None:
        self.last = LastGood(str(file), clock=monotonic)
        self._file = file
        self._random = random

    async def views(self) -> AsyncGenerator[Members, None]:
        """Each view that differs from the one before."""
        while True:
            form = parse(self._file.read_text())
            assert isinstance(form, StaticForm), "the form that names every member"
            if self.last.take(form.members):
                yield self.last.view
            await asyncio.sleep(self._random.uniform(_DNS.period_least_s, _DNS.period_most_s))


def _give_all_to(owner: str) -> None:
    """Every ring with others in it is ``owner``'s alone, and no copies travel to a backup."""
    ring_of = Ring.of

    def of(members: Iterable[Member]) -> Ring:
        ring = ring_of(members)
        slots = {member.name: range(SLOTS if member.name == owner else 0) for member in ring.members}
        owned = owner in slots
        return (
            replace(ring, owners=(owner,) * SLOTS, backups=(None,) * SLOTS, _slots=slots) if owned else ring
        )

    Ring.of = of  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main())
