"""Manifests of Kubernetes: valid by its own schemas, with no rights, no secret, and the same commands as compose."""

from functools import cache
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

NAMES = ("coordinator", "site")
VERSIONS = ("1.30", "1.37")
PODS = {"coordinator": {"superlink", "serverapp"}, "site": {"supernode", "clientapp"}}


RIGHTS = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


@cache
def manifests(name: str) -> tuple[dict[str, Any], ...]:
    return tuple(yaml.safe_load_all((ROOT / f"deploy/kubernetes/{name}.yaml").read_text()))


def of_kind(name: str, kind: str) -> dict[str, dict[str, Any]]:
    return {found["metadata"]["name"]: found for found in manifests(name) if found["kind"] == kind}


def pods(name: str) -> dict[str, dict[str, Any]]:
    return {title: found["spec"]["template"]["spec"] for title, found in of_kind(name, "Deployment").items()}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_each_manifest_is_what_kubernetes_knows(name: str, version: str) -> None:
    from kubernetes_validate import validate

    for found in manifests(name):
        validate(found, version, strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_no_pod_has_rights_or_takes_more_than_its_limits(name: str) -> None:
    [namespace] = of_kind(name, "Namespace").values()
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    assert pods(name).keys() == PODS[name]
    for pod in pods(name).values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        [container] = pod["containers"]
        expected = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["securityContext"] == expected
        assert container["resources"]["limits"].keys() == container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert {"hostNetwork", "hostPID", "hostIPC"}.isdisjoint(pod)


@pytest.mark.parametrize("name", NAMES)
def test_what_serves_is_probed_where_it_serves(name: str) -> None:
    for pod in pods(name).values():
        [container] = pod["containers"]
        ports = [port["containerPort"] for port in container.get("ports", [])]
        probes = [found["httpGet"] for key, found in container.items() if key.endswith("Probe")]
        assert len(probes) == 3 * len(ports)
        assert all(probe["port"] in ports and probe["path"] == "/health" for probe in probes)


def compose_command(service: str) -> set[str]:
    """What compose starts, without what names a place of compose's own."""
    files = ("docker-compose.yml", "docker-compose.site.yml", "deploy/services.yml")
    main, site, common = (yaml.safe_load((ROOT / name).read_text())["services"] for name in files)
    found = {**main, **site}[service]
    return {*found.get("entrypoint", common.get(service, {}).get("entrypoint", ())), *found.get("command", [])}


@pytest.mark.parametrize(("name", "service"), [(name, service) for name in NAMES for service in sorted(PODS[name])])
def test_each_pod_starts_what_compose_starts(name: str, service: str) -> None:
    own = {"--superlink=", "--node-config=", "--runtime-api-address=", "/guarded.py", "/guard/guarded.py"}
    [container] = pods(name)[service]["containers"]

    def shared(words: set[str]) -> set[str]:
        return {word for word in words if not word.startswith(tuple(own))}

    assert shared({*container["command"]}) == shared(compose_command(service))
    assert {word.partition("=")[0] for word in container["command"] if word.startswith("--")} == {
        word.partition("=")[0] for word in compose_command(service) if word.startswith("--")
    }


@pytest.mark.parametrize("name", NAMES)
def test_no_secret_is_in_a_file_and_each_pod_sees_its_own(name: str) -> None:
    assert not of_kind(name, "Secret")
    seen = {
        title: {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        for title, pod in pods(name).items()
    }
    known = {"superlink": "superlink-keys", "serverapp": "superlink-executor", "supernode": "node-keys"}
    known["clientapp"] = "node-executor"
    assert seen == {title: {known[title]} for title in PODS[name]}
    guide = (ROOT / "docs/deployment.md").read_text()
    for secret in seen.values():
        assert f"secret generic {secret.pop()} " in guide, "the guide makes it"


def test_code_of_a_run_reaches_its_supernode_and_nothing_else() -> None:
    policies = of_kind("site", "NetworkPolicy")
    assert policies["closed"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    own = policies["clientapp"]["spec"]
    assert own["podSelector"] == {"matchLabels": {"app": "clientapp"}}
    assert own["egress"] == [
        {"to": [{"podSelector": {"matchLabels": {"app": "supernode"}}}], "ports": [{"port": 9094}]}
    ]
    [container] = pods("site")["clientapp"]["containers"]
    data = [mount for mount in container["volumeMounts"] if mount["mountPath"] == "/data"]
    assert [mount["readOnly"] for mount in data] == [True]


@pytest.mark.parametrize("name", NAMES)
def test_services_and_policies_mean_pods_that_there_are(name: str) -> None:
    labels = {found["spec"]["template"]["metadata"]["labels"]["app"] for found in of_kind(name, "Deployment").values()}
    for service in of_kind(name, "Service").values():
        assert service["spec"]["selector"]["app"] in labels
    for policy in of_kind(name, "NetworkPolicy").values():
        assert policy["spec"]["podSelector"].get("matchLabels", {}).get("app") in {None, *labels}
    claims = set(of_kind(name, "PersistentVolumeClaim")) | {"site-data"}
    volumes = [volume for pod in pods(name).values() for volume in pod["volumes"]]
    assert {
        found["persistentVolumeClaim"]["claimName"] for found in volumes if "persistentVolumeClaim" in found
    } <= claims
