"""The words that the program ``snapring`` takes: its commands, their arguments and what is said of them."""

from argparse import SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter
from importlib.metadata import version
from typing import Final

import shtab

from cluster.commands.outcomes import MEANINGS
from cluster.grammar import asking, operating
from cluster.settings.load import DEFAULT_FILE
from cluster.settings.sources import CONFIG_VARIABLE

_ABOUT: Final = "A snapshot-consistent read cache for PostgreSQL."

_SETTINGS: Final = """\
settings:
  Every setting can be given in a TOML file, in the environment and as a flag; the
  later one wins. One rule names it everywhere:

    snapring.toml   [feed]                          [caches.user_by_id]
                    poll_period = "25ms"            ttl = "5m"
    environment     SNAPRING_FEED__POLL_PERIOD      SNAPRING_CACHES__USER_BY_ID__TTL
    flag            --feed.poll_period 25ms         --caches.user_by_id.ttl 5m

  "snapring config" prints all of them, and where each came from.

exit codes:
"""


def parser() -> ArgumentParser:
    """All of it."""
    made = ArgumentParser(
        prog="snapring",
        usage="snapring COMMAND [--config FILE] [--section.key VALUE ...] ...",
        description=_ABOUT,
        epilog=_SETTINGS + "".join(f"  {code:<5}{what}\n" for code, what in MEANINGS.items()),
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--version", action="version", version=f"snapring {version('snapring-node')}")
    _share(made)
    commands = made.add_subparsers(title="commands", metavar="COMMAND", prog="snapring", required=True)

    def command(name: str, target: str, what: str) -> ArgumentParser:
        added = commands.add_parser(name, help=what, description=_sentence(what), allow_abbrev=False)
        added.set_defaults(target=f"cluster.commands.{target}")
        _share(added)
        return added

    operating.add(command)
    asking.add(command)
    return made


def _share(parser: ArgumentParser) -> None:
    file = parser.add_argument(
        "--config",
        metavar="FILE",
        default=SUPPRESS,
        help=f"the TOML file (default: ${CONFIG_VARIABLE}, else ./{DEFAULT_FILE})",
    )
    file.complete = shtab.FILE  # type: ignore[attr-defined]  # what shtab looks for
    parser.add_argument("--json", action="store_true", default=SUPPRESS, help="answer in JSON")


def _sentence(what: str) -> str:
    return f"{what[0].upper()}{what[1:]}."
