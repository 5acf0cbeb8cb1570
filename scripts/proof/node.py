"""The node under proof: the ordinary program, without one of its guards if that is asked."""

import sys
from collections.abc import Sequence

from cluster.cli import main as snapring
from scripts.proof.clock import follow
from scripts.proof.mutations import MUTATIONS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``snapring node`` with ``arguments``, after ``--mutate NAME`` where they begin with that."""
    follow()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["--mutate"]:
        _remove(words[1])
        words = words[2:]
    return snapring(["node", *words])


def _remove(guard: str) -> None:
    remove = MUTATIONS[guard].remove
    assert remove is not None, "the guard is in the node, not in the database"
    remove()


if __name__ == "__main__":
    raise SystemExit(main())
