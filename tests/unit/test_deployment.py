"""The examples of deployment, as far as can be told without an engine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from bridge import config

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
SECRETS = dict.fromkeys(("ORTHANC_PASSWORD", "POSTGRES_PASSWORD", "HAPI_DB_PASSWORD", "EHR_TOKEN"), "x")
RUNS_AS_ROOT = {"prepare"}
ENDS = {"prepare"}

Tree = dict[str, Any]


def compose() -> Tree:
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8")))


SERVICES: Tree = compose()["services"]


def manifests() -> list[tuple[str, Tree]]:
    return [
        (f"{path.name}-{one['kind']}-{one['metadata']['name']}", one)
        for path in sorted(KUBERNETES.glob("*.yaml")) if path.name != "kustomization.yaml"
        for one in yaml.safe_load_all(path.read_text("utf-8"))
    ]  # fmt: skip


MANIFESTS = manifests()
SETS = [pytest.param(one, id=name) for name, one in MANIFESTS if one["kind"] == "StatefulSet"]


def pinned(image: str) -> bool:
    """Whether an image has a version, neither none nor one that moves."""
    tag = image.rpartition("/")[2].partition(":")[2]
    return bool(re.search(r"\d+\.\d+\.\d+|^\d+\.\d+-", tag)) or tag == "local"


def test_compose_is_valid_by_its_schema() -> None:
    command = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(ROOT / "docker-compose.yml")], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout


def test_compose_runs_all_that_belongs_together() -> None:
    assert {"orthanc", "hapi", "postgres", "bridge", "cohort"} <= SERVICES.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_bounded_has_a_user_and_a_version_and_is_published_on_loopback_only(name: str) -> None:
    service = SERVICES[name]
    assert pinned(service["image"])
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    if name not in RUNS_AS_ROOT:
        assert int(service["user"].partition(":")[0]) > 0
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    if name not in ENDS:
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_refers_to_exists(name: str) -> None:
    service, volumes = SERVICES[name], compose()["volumes"]
    for volume in service.get("volumes", []):
        source = volume.partition(":")[0]
        assert (ROOT / source).exists() if source.startswith(".") else source in volumes
    for other, on in service.get("depends_on", {}).items():
        healthy = on["condition"] == "service_healthy"
        assert ("healthcheck" in SERVICES[other]) if healthy else other in ENDS


def test_every_variable_of_compose_must_be_set() -> None:
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    assert set(re.findall(r"(?<!\$)\$\{(\w+)", text)) == SECRETS.keys() - {"EHR_TOKEN"}
    assert not re.findall(r"(?<!\$)\$\{\w+\}", text), "each says what to set"


def test_the_configuration_of_compose_fits_its_services() -> None:
    given = dict.fromkeys(SERVICES["bridge"]["environment"], "x")
    settings = config.load(ROOT / "deploy" / "compose" / "bridge.toml", given)
    assert [s.name for s in settings.sources] == ["orthanc", "receiver"]
    assert settings.database_url == "postgresql+psycopg://bridge:x@postgres/bridge"
    assert str(settings.data_dir) == SERVICES["bridge"]["volumes"][1].partition(":")[2]
    assert {s.url for s in settings.sinks} == {"http://hapi:8080/fhir"}
    archive = json.loads((ROOT / "deploy" / "compose" / "orthanc.json").read_text("utf-8"))
    (orthanc,) = (s for s in settings.sources if isinstance(s, config.OrthancSource))
    assert orthanc.url == f"http://orthanc:{archive['HttpPort']}"
    assert orthanc.username in archive["RegisteredUsers"]
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text("utf-8"))
    (target,) = scraped["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target == f"{settings.api.host_names[0]}:{settings.api.port}"


@pytest.mark.parametrize("one", [pytest.param(one, id=name) for name, one in MANIFESTS])
def test_a_manifest_is_valid_by_the_schema_of_the_api(one: Tree) -> None:
    kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


def test_a_wrong_manifest_is_found() -> None:
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"prots": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_the_kustomization_names_every_file() -> None:
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text("utf-8"))
    files = {*listed["resources"], *listed["configMapGenerator"][0]["files"], "kustomization.yaml"}
    assert files == {path.name for path in KUBERNETES.iterdir()}


@pytest.mark.parametrize("one", SETS)
def test_a_pod_keeps_to_the_restricted_standard_and_has_limits_and_probes(one: Tree) -> None:
    pod = one["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    for container in pod["containers"]:
        security = container["securityContext"]
        assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert set(container["resources"]["limits"]) == {"cpu", "memory"}
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()
        assert pinned(container["image"]) or container["image"] == "imaging-bridge"


@pytest.mark.parametrize("one", SETS)
def test_ports_volumes_and_labels_fit_together(one: Tree) -> None:
    template = one["spec"]["template"]
    (container,) = template["spec"]["containers"]
    names = {v["name"] for v in template["spec"]["volumes"]}
    names |= {v["metadata"]["name"] for v in one["spec"]["volumeClaimTemplates"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == names
    labels = template["metadata"]["labels"]
    assert one["spec"]["selector"]["matchLabels"] == labels
    (service,) = [m for _, m in MANIFESTS if m["kind"] == "Service" and m["spec"]["selector"] == labels]
    assert one["spec"]["serviceName"] == service["metadata"]["name"]
    assert {p["targetPort"] for p in service["spec"]["ports"]} == {p["name"] for p in container["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        if "httpGet" in container[probe]:
            assert container[probe]["httpGet"]["port"] in {p["name"] for p in container["ports"]}


def test_the_configuration_of_the_cluster_loads_with_the_variables_that_its_pod_has() -> None:
    (bridge,) = [m for _, m in MANIFESTS if m["kind"] == "StatefulSet" and m["metadata"]["name"] == "bridge"]
    (container,) = bridge["spec"]["template"]["spec"]["containers"]
    settings = config.load(KUBERNETES / "bridge.toml", {e["name"]: "x" for e in container["env"]})
    assert "localhost" in str(container["livenessProbe"])
    ports = {p["containerPort"] for p in container["ports"]}
    receivers = {s.port for s in settings.sources if isinstance(s, config.ReceiverSource)}
    assert ports == {settings.api.port, *receivers}
    assert str(settings.data_dir) in {m["mountPath"] for m in container["volumeMounts"]}
    assert (container["livenessProbe"]["httpGet"]["path"], container["readinessProbe"]["httpGet"]["path"]) == (
        "/healthz",
        "/readyz/state",
    )


def test_the_image_is_pinned_has_no_root_and_holds_what_the_configurations_need() -> None:
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    assert all(pinned(line.split()[1]) for line in lines if line.startswith("FROM"))
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 10001:10001"
    assert any("--require-hashes" in line for line in lines)
    lock = (ROOT / "requirements-image.lock").read_text("utf-8")
    assert "\npsycopg==" in lock
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    copied = {word for line in lines if line.startswith("COPY") and "--from" not in line for word in line.split()[1:-1]}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
