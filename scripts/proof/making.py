"""Makes the nodes of a proof: the configuration and the command of each."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.proof.nameserver import SERVICE
from scripts.proof.nodes import NodeProcess
from scripts.proof.ports import free_port
from scripts.proof.proxy import HOST
from scripts.proof.views import Views


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """What nodes are made of; ``settings`` add to their TOML files, by section."""

    directory: Path
    url: str
    secret: str
    views: Views | None
    settings: Mapping[str, str]
    mutation: str | None
    environment: Mapping[str, str]

    def node(self, name: str) -> NodeProcess:
        """The node of that name, not started."""
        place, port = self.directory / name, free_port(HOST)
        place.mkdir()
        file = place / "snapring.toml"
        file.touch(mode=0o600)
        file.write_text("".join(f"[{name}]\n{body}\n\n" for name, body in self._sections(name, port).items()))
        command = [sys.executable, "-P", "-m", "scripts.proof.node"]
        command += ["--mutate", self.mutation] if self.mutation else []
        command += ["--nameserver", f"{HOST}:{self.views.nameserver(name)}"] if self.views else []
        return NodeProcess(
            name, [*command, "--config", str(file)], port, place / "node.log", self.environment
        )

    def _sections(self, name: str, port: int) -> Mapping[str, str]:
        sections = {
            "node": f'name = "{name}"\nsecrets = ["{self.secret}"]',
            "postgres": f'url = "{self.url}"',
            "resp": f'host = "{HOST}"\nport = {port}',
            "grpc": 'port = "none"',
            "http": 'port = "none"',
        }
        if self.views is not None:
            host, peers_port = self.views.addresses[name], self.views.port
            discovery = f"kubernetes:///{SERVICE}:{peers_port}"
            sections["peers"] = f'discovery = "{discovery}"\nhost = "{host}"\nport = {peers_port}'
        for section, body in self.settings.items():
            sections[section] = "\n".join(filter(None, (sections.get(section), body)))
        return sections
