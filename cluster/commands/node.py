"""``snapring node`` and ``snapring up``: run one node until it is told to stop."""

from importlib import import_module

from cluster.commands.outcomes import OK
from cluster.commands.run import Run, complain


def node(run: Run) -> int:
    """Run one node with the settings in force."""
    settings = run.settings()
    for note in settings.notes:
        complain(note)
    code: int | None = import_module("cluster.serve").run(settings.config)
    return code or OK


def up(run: Run) -> int:
    """Run a node on a development database; ``--database URL`` in place of an embedded one."""
    code: int | None = import_module("cluster.up").run(run)
    return code or OK
