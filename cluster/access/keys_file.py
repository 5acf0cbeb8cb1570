"""The keys file on disk."""

from pathlib import Path

from cluster.access.keyring import MAX_BYTES, Keyring, read_keyring
from snapring.errors import ConfigInvalid


def load_keyring(file: Path) -> Keyring:
    """The keyring in ``file``. Raises `ConfigInvalid`, which names the file and no hash."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
        text = raw.decode()
    except OSError as error:
        raise ConfigInvalid([f"{file}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigInvalid([f"{file}: is not UTF-8 text"]) from None
    if len(raw) > MAX_BYTES:
        raise ConfigInvalid([f"{file}: is larger than {MAX_BYTES} bytes"])
    try:
        return read_keyring(text)
    except ConfigInvalid as error:
        raise ConfigInvalid([f"{file}: {problem}" for problem in error.problems]) from None
