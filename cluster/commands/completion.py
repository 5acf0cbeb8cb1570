"""``snapring completion SHELL``: what makes a shell complete the words of the program."""

import shtab

from cluster.commands.outcomes import OK
from cluster.commands.run import Run, print_line
from cluster.grammar import parser

SHELLS = ("bash", "zsh", "fish")


def run(run: Run) -> int:
    """Print the script, made of the very words that the program takes."""
    print_line(shtab.complete(parser(), run.arguments.shell))
    return OK
