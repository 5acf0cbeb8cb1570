"""The manifests are what Kubernetes accepts, agree with one another, and with what the node's code says."""

import re
import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import trustme
from kubernetes.utils.quantity import parse_quantity

from certificates import issue
from cluster.access.guard import Guard
from cluster.doors.http.pages import LIVEZ, METRICS, READYZ
from cluster.settings.load import Settings, Surroundings, load
from cluster.settings.units import MIB
from keys import holder, write_keys
from manifests import KUBERNETES, ROOT, Identity, Manifest, build, directories, listed, pods_of, rendered
from peers.discovery.forms import ServiceForm, parse

BASE = KUBERNETES / "base"
ENDPOINTSLICE = KUBERNETES / "overlays" / "endpointslice"
ACCESS, AUTOSCALING, MONITORING, TRACES = (
    KUBERNETES / "components" / name for name in ("access", "autoscaling", "monitoring", "traces")
)
BUILDS = {
    "base": (BASE, ()),
    "endpointslice": (ENDPOINTSLICE, ()),
    "access": (BASE, (ACCESS,)),
    "everything": (ENDPOINTSLICE, (ACCESS, AUTOSCALING, MONITORING, TRACES)),
}
OLDEST, NEWEST = "1.30.0", kubernetes_validate.latest_version()
"""Since 1.30 a hook may sleep without a program to do it."""

CUSTOM = {"ServiceMonitor"}
USUAL_MAX_CONNECTIONS, KEPT_FOR_SUPERUSERS = 100, 3


@pytest.fixture(params=BUILDS)
def made(request: pytest.FixtureRequest) -> dict[Identity, Manifest]:
    """Each way to put the manifests together."""
    directory, components = BUILDS[request.param]
    return build(directory, components)


def container(made: dict[Identity, Manifest]) -> Any:
    """The node's."""
    (pod,) = pods_of(made)
    (found,) = pod["containers"]
    return found


def settings(made: dict[Identity, Manifest], tmp_path: Path) -> Settings:
    """What the node reads in its pod: the ConfigMap, secrets in files, and the environment."""
    folder = tmp_path / "access"
    folder.mkdir()
    files = issue(trustme.CA(), folder, "snapring", "snapring-peers")
    write_keys(folder / "keys.toml", [holder("app", "acme")])
    places = {
        "keys.toml": folder / "keys.toml",
        "tls.crt": files.cert,
        "tls.key": files.key,
        "ca.crt": files.ca,
    }
    (tmp_path / "ring").write_text("0123456789abcdef0123456789abcdef")
    document = made["ConfigMap", "snapring"]["data"]["snapring.toml"]
    (tmp_path / "snapring.toml").write_text(
        document.replace("/run/secrets/snapring/ring", str(tmp_path / "ring"))
    )
    sources = {"POD_NAMESPACE": "caches", "SNAPRING_POSTGRES__URL": "postgresql://app@db/app"}
    environment: dict[str, str] = {}
    for variable in container(made)["env"]:
        if "value" in variable:
            value = expanded(variable["value"], environment)
            name = value.removeprefix("/run/secrets/snapring-access/")
            environment[variable["name"]] = str(places.get(name, value))
        else:
            environment[variable["name"]] = sources[variable["name"]]
    around = Surroundings(environment=environment, host_name="snapring-0", random_bytes=bytes)
    return load(tmp_path / "snapring.toml", [], around)


def expanded(value: str, before: Mapping[str, str]) -> str:
    """As Kubernetes does it: $(NAME) is a variable of the same container that is listed before."""
    return re.sub(r"\$\((\w+)\)", lambda found: before.get(found[1], found[0]), value)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("name", BUILDS)
def test_kustomize_makes_the_same_of_them(name: str, tmp_path: Path) -> None:
    """What the other tests look at is what is applied."""
    assert rendered(*BUILDS[name], tmp_path) == build(*BUILDS[name])


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_accepts_them(made: dict[Identity, Manifest], version: str) -> None:
    """Strictly: a misspelt field is an error, and so is a wrong type."""
    for (kind, _), manifest in made.items():
        if kind not in CUSTOM:
            kubernetes_validate.validate(manifest, version, strict=True)
            with pytest.raises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate({**manifest, "misspelt": 1}, version, strict=True)


@pytest.mark.parametrize("directory", directories(), ids=lambda each: str(each.relative_to(KUBERNETES)))
def test_every_file_is_listed(directory: Path) -> None:
    """What no kustomization names is deployed by nobody."""
    assert listed(directory) == set(directory.glob("*.yaml")) - {directory / "kustomization.yaml"}


def test_the_node_accepts_its_configuration(made: dict[Identity, Manifest], tmp_path: Path) -> None:
    """No setting is unknown or out of bounds, and every file that it names is mounted."""
    found = settings(made, tmp_path)
    Guard(found.config)
    assert found.notes == ()
    mounts = {mount["mountPath"] for mount in container(made)["volumeMounts"]}
    named = re.findall(r"/run/secrets/[a-z-]+", str(made))
    assert {*named, "/etc/snapring", "/tmp"} >= mounts >= set(named)
    assert container(made)["args"] == ["node", "--config", "/etc/snapring/snapring.toml"]


def test_ports_are_those_of_the_doors(made: dict[Identity, Manifest], tmp_path: Path) -> None:
    """And Services and policies name them as the container does."""
    config = settings(made, tmp_path).config
    ports = {port["name"]: port["containerPort"] for port in container(made)["ports"]}
    doors = {"resp": config.resp, "grpc": config.grpc, "http": config.http, "peers": config.peers}
    assert ports == {name: door.port for name, door in doors.items()}
    assert {door.host for door in doors.values()} == {"0.0.0.0"}
    for (kind, _), manifest in made.items():
        for port in manifest["spec"]["ports"] if kind == "Service" else ():
            assert (port["targetPort"], port["port"]) == (port["name"], ports[port["name"]])
        for rule in _rules(manifest) if kind == "NetworkPolicy" else ():
            assert {port["port"] for port in rule["ports"]} <= {*ports, 53, 443, 4318, 5432, 6443}


def test_the_discovery_names_the_headless_service(made: dict[Identity, Manifest], tmp_path: Path) -> None:
    """Which also shows who is not ready: before it has found the others, nobody is."""
    config = settings(made, tmp_path).config
    form = parse(config.peers.discovery)
    assert isinstance(form, ServiceForm)
    service = made["Service", form.service]["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    assert made["StatefulSet", "snapring"]["spec"]["serviceName"] == form.service
    assert (form.namespace, form.port) == ("caches", config.peers.port)
    assert not made["Service", "snapring"]["spec"].get("publishNotReadyAddresses")
    assert form.watched == (("Role", "snapring") in made)
    (pod,) = pods_of(made)
    assert pod["automountServiceAccountToken"] is form.watched


def test_probes_ask_what_the_door_answers(made: dict[Identity, Manifest], tmp_path: Path) -> None:
    """Only readiness asks whether the node is ready; by TLS exactly where the door speaks it."""
    config = settings(made, tmp_path).config
    paths = {"startupProbe": LIVEZ, "livenessProbe": LIVEZ, "readinessProbe": READYZ}
    for probe, path in paths.items():
        asked = container(made)[probe]["httpGet"]
        assert (asked["path"], asked["port"]) == (path, "http")
        assert asked.get("scheme", "HTTP") == ("HTTPS" if config.tls.cert_file else "HTTP")
        assert container(made)[probe].get("timeoutSeconds", 1) <= 5


def test_there_is_time_to_drain(made: dict[Identity, Manifest], tmp_path: Path) -> None:
    """The pause before it, what requests and writes under way may take, and five seconds more."""
    config = settings(made, tmp_path).config
    (pod,) = pods_of(made)
    pause_s = container(made)["lifecycle"]["preStop"]["sleep"]["seconds"]
    longest_s = max(config.drain_timeout_s, config.request_timeout_s, config.write.timeout_s)
    assert pause_s >= 5
    assert pod["terminationGracePeriodSeconds"] >= pause_s + longest_s + 5


def test_pods_are_restricted(made: dict[Identity, Manifest]) -> None:
    """As the Pod Security Standards name it; and Services put no variables into their environment."""
    (pod,) = pods_of(made)
    security = container(made)["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert pod["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)


def test_memory_and_connections_are_enough(made: dict[Identity, Manifest], tmp_path: Path) -> None:
    """Requested as limited, with room for the process; and Postgres has connections for as many as there may be."""
    config = settings(made, tmp_path).config
    resources = container(made)["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert "cpu" not in resources["limits"]
    room = parse_quantity(resources["limits"]["memory"]) - config.memory_bytes
    assert room >= 150 * MIB
    each = config.postgres.connections + config.write.connections + 1
    scaler = made.get(("HorizontalPodAutoscaler", "snapring"))
    most = scaler["spec"]["maxReplicas"] if scaler else made["StatefulSet", "snapring"]["spec"]["replicas"]
    assert most * each <= USUAL_MAX_CONNECTIONS - KEPT_FOR_SUPERUSERS


def test_one_leaves_at_a_time_and_none_is_stuck(made: dict[Identity, Manifest]) -> None:
    """They come all at once; one that is not ready keeps no machine from being drained."""
    budget = made["PodDisruptionBudget", "snapring"]["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert made["StatefulSet", "snapring"]["spec"]["podManagementPolicy"] == "Parallel"


def test_all_selectors_mean_the_pods(made: dict[Identity, Manifest]) -> None:
    """Of the StatefulSet; and the network is closed to them but for what is named."""
    labels = made["StatefulSet", "snapring"]["spec"]["template"]["metadata"]["labels"]
    for (kind, _), manifest in made.items():
        spec = manifest.get("spec", {})
        if kind == "Service":
            assert spec["selector"] == labels
        if kind in ("StatefulSet", "PodDisruptionBudget"):
            assert spec["selector"]["matchLabels"] == labels
        if kind == "NetworkPolicy":
            assert spec["podSelector"]["matchLabels"] == labels
    deny = made["NetworkPolicy", "snapring-default-deny"]["spec"]
    assert sorted(deny["policyTypes"]) == ["Egress", "Ingress"]
    assert not {"ingress", "egress"} & set(deny)


def test_prometheus_is_sent_to_the_metrics() -> None:
    """Of every node, ready or not."""
    made = build(BASE, [MONITORING])
    monitor, service = made["ServiceMonitor", "snapring"]["spec"], made["Service", "snapring-metrics"]
    (endpoint,) = monitor["endpoints"]
    assert endpoint["path"] == METRICS
    assert [port["name"] for port in service["spec"]["ports"]] == [endpoint["port"]]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["spec"]["publishNotReadyAddresses"] is True


def test_the_image_runs_the_program_as_nobody_in_particular(tmp_path: Path) -> None:
    """All that it copies is there and is not ignored; it exposes the doors' ports, as the manifests do."""
    lines = (ROOT / "deploy" / "Dockerfile").read_text().splitlines()
    words = [line.split() for line in lines if line and not line.startswith("#")]
    (pod,) = pods_of(build(BASE))
    user = pod["securityContext"]["runAsUser"]
    assert [line[1] for line in words if line[0] == "USER"] == [f"{user}:{user}"]
    copied = [name for line in words if line[0] == "COPY" and "--from" not in line[1] for name in line[1:-1]]
    assert all((ROOT / name).exists() for name in copied)
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().split()
    assert all(any(fnmatch(name, each[1:]) for each in ignored if each[0] == "!") for name in copied)
    ports = {str(port["containerPort"]) for port in pod["containers"][0]["ports"]}
    assert {port for line in words if line[0] == "EXPOSE" for port in line[1:]} == ports


def _rules(policy: Manifest) -> list[Any]:
    return [*policy["spec"].get("ingress", ()), *policy["spec"].get("egress", ())]
