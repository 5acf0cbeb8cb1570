"""``snapring config``: every setting in force and where it came from; the README's table of them."""

import json
from collections.abc import Iterator

from cluster.commands.outcomes import OK
from cluster.commands.run import Run, complain, print_json, print_line, print_table
from cluster.settings import schema
from cluster.settings.load import Settings
from cluster.settings.schema import NAMED, Spec
from cluster.settings.units import range_of, show


def run(run: Run) -> int:
    """Print the settings: a table; when piped, lines that are TOML themselves; with --json, JSON."""
    if run.arguments.table:
        print_line(markdown_table())
        return OK
    settings = run.settings()
    if run.json:
        print_json(_as_json(settings))
    elif run.terminal:
        rows = [(each.name, _toml(each.value), str(each.origin)) for each in settings.in_force]
        print_table(("setting", "value", "from"), rows)
    else:
        for line in toml_lines(settings):
            print_line(line)
    if not run.json:
        for note in settings.notes:
            complain(note)
    return OK


def markdown_table() -> str:
    """Every setting, its default and its meaning, for the README."""
    rows = [f"| `{_name(spec)}` | {_default(spec)} | {_meaning(spec)} |" for spec in schema.specs()]
    return "\n".join(("| setting | default | meaning |", "|---|---|---|", *rows))


def toml_lines(settings: Settings) -> Iterator[str]:
    """The settings as a TOML document, without secrets; reading it gives them again."""
    for each in settings.in_force:
        comment = "# " if each.redacted else ""
        yield f"{comment}{each.name} = {_toml(each.value)}  # {each.origin}"


def _as_json(settings: Settings) -> object:
    return {
        "settings": [
            {
                "name": each.name,
                "value": each.value,
                "source": each.origin.source.value,
                "where": each.origin.where or None,
            }
            for each in settings.in_force
        ],
        "notes": list(settings.notes),
    }


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _name(spec: Spec) -> str:
    middle = "NAME." if spec.section in NAMED else ""
    return f"{spec.section}.{middle}{spec.key}"


def _default(spec: Spec) -> str:
    return spec.setting.absent or f"`{_toml(show(spec.setting, spec.default))}`".replace("|", "\\|")


def _meaning(spec: Spec) -> str:
    bounds = range_of(spec.setting)
    return f"{spec.setting.doc} ({bounds})" if bounds else spec.setting.doc
