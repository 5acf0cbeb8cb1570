"""``snapring token``: a name for a snapshot, to read at or after it."""

from cluster.commands import reach
from cluster.commands.outcomes import OK
from cluster.commands.run import Run, print_json, print_line


def run(run: Run) -> int:
    """Print it alone, so that ``--at-least $(snapring token)`` works; with ``--json`` as an object."""
    asked = run.arguments
    with reach.client(run) as client:
        token = client.token(strong=asked.strong, ticket=asked.ticket)
    if run.json:
        print_json({"token": token})
    else:
        print_line(token)
    return OK
