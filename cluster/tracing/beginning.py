"""Traces where the configuration asks for them; without, nothing of OpenTelemetry is imported."""

import asyncio
from typing import TYPE_CHECKING

from psycopg.conninfo import conninfo_to_dict

from cluster.config import NodeConfig
from snapring.errors import ConfigInvalid

if TYPE_CHECKING:
    from cluster.tracing.export import Export
    from cluster.tracing.tracing import Tracing


class Traces:
    """The traces of a node as a process: ``tracing`` is None where there are none."""

    def __init__(self, tracing: "Tracing | None" = None, export: "Export | None" = None) -> None:
        self.tracing = tracing
        self._export = export

    def __repr__(self) -> str:
        return f"<Traces {self.tracing!r}>"

    def describe(self) -> dict[str, dict[str, object]]:
        """A section about them, where there are any."""
        if self.tracing is None or self._export is None:
            return {}
        passed_over = self.tracing.rate.passed_over
        return {
            "traces": {"traced": self.tracing.traced, "passed_over": passed_over, **self._export.describe()}
        }

    async def stop(self) -> None:
        """Send what is left, within ``traces.timeout``."""
        if self._export is not None:
            await asyncio.to_thread(self._export.stop)


def begin(config: NodeConfig) -> Traces:
    """Raises `ConfigInvalid` where traces are asked for and the extra is not installed."""
    if not config.traces.enabled:
        return Traces()
    try:
        from cluster.tracing.export import Export  # noqa: PLC0415 -- an extra
        from cluster.tracing.traced import Scope  # noqa: PLC0415
        from cluster.tracing.tracing import Tracing  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigInvalid(
            [f"traces.enabled needs the extra snapring-node[otel] ({error.name} is not installed)"]
        ) from error
    export = Export(config.traces, config.name)
    scope = Scope(
        tracer=export.provider.get_tracer("snapring"),
        caches=frozenset(config.caches),
        tenants=config.traces.tenants,
        room=config.traces.request_spans - 1,
        database=database(config.postgres.url),
    )
    return Traces(Tracing(scope, share=config.traces.sample, rate=config.traces.rate), export)


def database(url: str) -> dict[str, str | int]:
    """What spans tell of the database at ``url``: never who logs in, nor how."""
    parts = conninfo_to_dict(url)
    told: dict[str, str | int] = {"db.system.name": "postgresql"}
    for name, attribute in (("dbname", "db.namespace"), ("host", "server.address")):
        if parts.get(name):
            told[attribute] = str(parts[name])
    if str(parts.get("port") or "").isdigit():
        told["server.port"] = int(str(parts["port"]))
    return told
