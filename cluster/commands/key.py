"""``snapring key new``: an API key, shown once, and the line of the keys file that lets it in."""

import json
import secrets

from cluster.access.identity import Role
from cluster.access.secret import digest, is_name, mint, show_digest
from cluster.commands.outcomes import OK
from cluster.commands.run import CallError, Run, print_json, print_line

ROLES = tuple(role.name.lower() for role in Role)


def new(run: Run) -> int:
    """Print a key and its line. Nothing is stored: who loses the key makes another."""
    asked = run.arguments
    try:
        key = mint(asked.name, secrets.token_bytes)
    except ValueError as error:
        raise CallError(f"--name: {error}") from error
    if not is_name(asked.tenant):
        raise CallError("--tenant: a tenant is a letter, then at most 62 letters, digits, _ or -")
    hashed = show_digest(digest(key.encode()))
    line = f'{asked.name} = {{ tenant = "{asked.tenant}", role = "{asked.role}", hashes = ["{hashed}"] }}'
    if run.json:
        print_json({"name": asked.name, "key": key, "hash": hashed, "line": line})
        return OK
    print_line(f"the key, shown this once: {key}")
    print_line(
        f"the line for access.keys_file (of a name that is there, add {json.dumps(hashed)} to its hashes):"
    )
    print_line(line)
    return OK
