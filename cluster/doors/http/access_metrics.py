"""What is counted of who comes in: credentials and quotas, where clients must show a key, and the files followed."""

from cluster.access.guard import Guard
from cluster.doors.http.families import Families, counter, counters, gauge


def access_metrics(guard: Guard) -> Families:
    """Of ``guard``; no tenant and no credential is named."""
    gate, watch = guard.gate, guard.watch
    if gate is not None:
        yield gauge("credentials", "API keys' names that are known.", gate.credentials)
        logins = {"accepted": gate.accepted, "rejected": gate.rejected}
        yield counters("logins", "Credentials that were shown, by what became of them.", "outcome", logins)
        yield counter("quota_refusals", "Requests beyond what their tenant may use.", gate.refused)
    looks = {"reloaded": watch.reloads, "broken": watch.failures}
    yield counters("file_changes", "New API keys and certificates, by what became of them.", "outcome", looks)
