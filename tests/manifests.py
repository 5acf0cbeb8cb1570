"""The manifests under deploy/, put together as kustomize does it, as far as they need it."""

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
KUBERNETES = ROOT / "deploy" / "kubernetes"
Manifest = dict[str, Any]
Identity = tuple[str, str]


def directories() -> list[Path]:
    """Every directory that has a kustomization."""
    return sorted(file.parent for file in KUBERNETES.rglob("kustomization.yaml"))


def documents(file: Path) -> list[Manifest]:
    """The manifests in one file."""
    return [each for each in yaml.safe_load_all(file.read_text()) if each]


def kustomization(directory: Path) -> Manifest:
    """What it says of itself."""
    (found,) = documents(directory / "kustomization.yaml")
    return found


def listed(directory: Path) -> set[Path]:
    """The files that a kustomization names, in its own directory."""
    said = kustomization(directory)
    names = [*said.get("resources", ()), *(patch["path"] for patch in said.get("patches", ()))]
    return {directory / name for name in names if (directory / name).is_file()}


def build(directory: Path, components: Iterable[Path] = ()) -> dict[Identity, Manifest]:
    """All manifests of ``directory`` and of ``components`` on top of it, by kind and name."""
    made: dict[Identity, Manifest] = {}
    for each in (directory, *components):
        _take(each, made)
    return made


def rendered(directory: Path, components: Iterable[Path], scratch: Path) -> dict[Identity, Manifest]:
    """The same as `kubectl kustomize` does it, in the folder ``scratch``."""
    overlay = {
        "resources": [os.path.relpath(directory, scratch)],
        "components": [os.path.relpath(component, scratch) for component in components],
    }
    (scratch / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    found = subprocess.run(["kubectl", "kustomize", scratch], capture_output=True, check=True)
    return {identity(manifest): manifest for manifest in yaml.safe_load_all(found.stdout)}


def _take(directory: Path, made: dict[Identity, Manifest]) -> None:
    said = kustomization(directory)
    for name in said.get("resources", ()):
        place = (directory / name).resolve()
        if place.is_dir():
            _take(place, made)
            continue
        for manifest in documents(place):
            assert identity(manifest) not in made, f"{identity(manifest)} is there twice"
            made[identity(manifest)] = manifest
    for patch in said.get("patches", ()):
        for manifest in documents(directory / patch["path"]):
            made[identity(manifest)] = merged(made[identity(manifest)], manifest)
    for labels in said.get("labels", ()):
        for manifest in made.values():
            manifest["metadata"].setdefault("labels", {}).update(labels["pairs"])


def identity(manifest: Mapping[str, Any]) -> Identity:
    """What a manifest is told from others by."""
    return manifest["kind"], manifest["metadata"]["name"]


def merged(base: Any, patch: Any) -> Any:
    """A strategic merge: maps are joined, lists of what has a name by that name, all else is replaced.

    In a list, what the patch names comes first.
    """
    if isinstance(base, dict) and isinstance(patch, dict):
        return {**base, **{key: merged(base.get(key), value) for key, value in patch.items()}}
    if isinstance(base, list) and isinstance(patch, list) and all("name" in each for each in patch):
        by_name = {each["name"]: each for each in deepcopy(base)}
        patched = [merged(by_name.pop(each["name"], None), each) for each in patch]
        return [*patched, *by_name.values()]
    return patch


def pods_of(made: Mapping[Identity, Manifest]) -> Iterator[Manifest]:
    """The pods' specification of the StatefulSet, of which there is one."""
    for (kind, _), manifest in made.items():
        if kind == "StatefulSet":
            yield manifest["spec"]["template"]["spec"]
