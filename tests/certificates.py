"""Certificates made in the test: an authority, and files that it can replace."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Files:
    """Where a certificate, its key and the authority's own certificate are."""

    cert: Path
    key: Path
    ca: Path


def issue(authority: trustme.CA, folder: Path, *names: str, trusted: Iterable[trustme.CA] = ()) -> Files:
    """A certificate for ``names``, in files of ``folder``, in place of those there; ``ca`` holds whom it trusts."""
    folder.mkdir(exist_ok=True)
    files = Files(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")
    issued = authority.issue_cert(*names)
    _replace(files.cert, b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    _replace(files.key, issued.private_key_pem.bytes())
    _replace(files.ca, b"".join(each.cert_pem.bytes() for each in trusted or (authority,)))
    return files


def _replace(file: Path, content: bytes) -> None:
    new = file.with_suffix(".new")
    new.write_bytes(content)
    new.replace(file)
