"""What the files for containers promise, read from the files themselves."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.requirements import requirements
from server_app.cli.keys import CONTAINER_USER, SITES_HERE
from tests.conftest import ROOT

COMMON = yaml.safe_load((ROOT / "deploy/services.yml").read_text())["services"]
FILES = ("docker-compose.yml", "docker-compose.site.yml")


def services(name: str) -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load((ROOT / name).read_text())["services"])


@pytest.mark.parametrize("name", FILES)
def test_every_service_is_hardened_and_weakens_nothing(name: str) -> None:
    for service, declared in services(name).items():
        chain = [declared]
        base = declared["extends"]["service"]
        while base:
            chain.append(COMMON[base])
            base = COMMON[base].get("extends")
        assert chain[-1] is COMMON["hardened"], service
        for part in chain[:-1]:
            assert not part.keys() & {"user", "read_only", "cap_drop", "cap_add", "security_opt", "privileged"}, service


def test_hardened_means_no_rights_and_limits() -> None:
    hardened = COMMON["hardened"]
    assert hardened["read_only"] is True
    assert hardened["cap_drop"] == ["ALL"]
    assert hardened["security_opt"] == ["no-new-privileges:true"]
    assert hardened["user"].startswith("${WINNOW_UID")
    assert hardened["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}


def test_one_port_is_published_and_only_on_this_machine_unless_told() -> None:
    published = {name: found["ports"] for name, found in services(FILES[0]).items() if "ports" in found}
    assert published == {"superlink": ["${WINNOW_BIND:-127.0.0.1}:${WINNOW_PORT:-8000}:8000"]}
    assert not any("ports" in found for found in services(FILES[1]).values())


def test_the_command_tells_the_operator_to_type_what_runs_it_in_its_container() -> None:
    command = services(FILES[0])["winnow"]["environment"]["WINNOW_COMMAND"]
    assert f"#   {command} submit " in (ROOT / FILES[0]).read_text()
    assert services(FILES[0])["serverapp"]["environment"]["WINNOW_COMMAND"] == command, "for the record of a run"


def test_no_two_sites_share_a_network_and_only_the_superlink_has_a_way_out() -> None:
    main = yaml.safe_load((ROOT / FILES[0]).read_text())
    used = {name: found.get("networks", []) for name, found in main["services"].items()}
    for name, networks in main["networks"].items():
        members = {service for service, own in used.items() if name in own}
        site = name.partition("-")[2]
        if name == "public":
            assert members == {"superlink"}
        else:
            assert networks["internal"] is True
            known = {"coordinator": {"superlink", "serverapp", "winnow", "register"}}
            known |= {f"link-{site}": {"superlink", f"supernode-{site}"}}
            assert members == known.get(name, {f"supernode-{site}", f"clientapp-{site}"})


def merged(*files: str, **environment: str) -> dict[str, Any]:
    """What compose makes of its files, which needs no engine."""
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], check=False).returncode:
        pytest.skip("docker compose is not installed")
    command = ["docker", "compose", *(word for file in files for word in ("-f", file)), "config", "--format", "json"]
    output = subprocess.check_output(command, cwd=ROOT, env={**os.environ, **environment})
    return dict(json.loads(output)["services"])


SITES = {f"{part}-{site}" for part in ("supernode", "clientapp") for site in range(3)}
COORDINATOR = {"superlink", "serverapp", "register"}


@pytest.mark.parametrize(("profiles", "started"), [("", COORDINATOR), ("sites", COORDINATOR | SITES)])
def test_sites_of_this_machine_are_started_where_the_profile_says_so(profiles: str, started: set[str]) -> None:
    assert merged("docker-compose.yml", COMPOSE_PROFILES=profiles).keys() == started
    assert {name for name, found in services(FILES[0]).items() if found.get("profiles") == [SITES_HERE]} == SITES


def test_the_superlink_asks_operators_for_their_token_and_their_command_shows_it() -> None:
    found = services(FILES[0])
    entry = found["superlink"]["entrypoint"]
    assert entry[:4] == ["python", "-P", "/guarded.py", "flower-superlink"]
    assert "./server_app/cli/guarded.py:/guarded.py:ro" in found["superlink"]["volumes"]
    token = found["winnow"]["environment"]["WINNOW_SUPERLINK_TOKEN"]
    assert entry[4] == token == "/run/secrets/operator.token"
    holders = {name for name, service in found.items() if "operator.token" in service.get("secrets", [])}
    assert holders == {"superlink", "winnow", "register"}, "no code of a run, at the server or at sites"


def test_executors_are_bounded_in_containers_as_they_are_without() -> None:
    whole = merged(FILES[0], COMPOSE_PROFILES=SITES_HERE) | merged(FILES[1], SITE_NAME="a", SITE_NUMBER="0")
    executors = {name: found for name, found in whole.items() if "flower-superexec" in found["entrypoint"]}
    assert executors.keys() == {"serverapp", "clientapp", "clientapp-0", "clientapp-1", "clientapp-2"}
    for found in executors.values():
        assert found["entrypoint"][:4] == ["python", "-P", "/guarded.py", "flower-superexec"]
        mounted = {volume["target"]: volume for volume in found["volumes"]}["/guarded.py"]
        assert (mounted["source"], mounted["read_only"]) == (str(ROOT / "server_app/cli/guarded.py"), True)


def test_a_site_s_own_command_reads_its_data_and_lists_and_no_key() -> None:
    [found] = [
        service
        for name, service in merged(FILES[1], SITE_NAME="a", SITE_NUMBER="0", COMPOSE_PROFILES="tools").items()
        if name == "winnow"
    ]
    assert not found.get("secrets")
    writable = {volume["target"] for volume in found["volumes"] if not volume.get("read_only")}
    assert writable == {"/state"}
    assert found["network_mode"] == "host", "its page is on 127.0.0.1"


def test_the_proxy_takes_the_superlink_s_port_and_is_hardened_like_all() -> None:
    found = merged("docker-compose.yml", "deploy/proxy.yml")
    assert not found["superlink"].get("ports")
    proxy, other = found["proxy"], found["superlink"]
    assert [(port["host_ip"], port["published"]) for port in proxy["ports"]] == [("127.0.0.1", "8000")]
    for key in ("user", "read_only", "cap_drop", "security_opt", "tmpfs", "deploy", "init"):
        assert proxy[key] == other[key]
    text = (ROOT / "deploy/nginx.conf").read_text()
    needed = {secret["target"] for secret in proxy["secrets"]} | {volume["target"] for volume in proxy["volumes"]}
    assert needed == {*re.findall(r"/run/secrets/[\w.]+", text), proxy["entrypoint"][2]}


@pytest.mark.parametrize("keys", [(), ("hospital-a.pub", "node 0.pub")])
def test_the_nodes_that_there_are_are_registered(keys: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "python").write_text('#!/bin/sh\nshift 4\nprintf "<%s>" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    for key in keys:
        (tmp_path / "keys" / key).touch()
    shell, option, script = services(FILES[0])["register"]["entrypoint"]
    here = script.replace("$$", "$").replace("-- /keys/", f"-- {tmp_path}/keys/")
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([shell, option, here], env=path, capture_output=True, text=True, check=True)
    expected = "".join(f"<{tmp_path}/keys/{key}>" for key in keys)
    assert done.stdout == (expected or "no node to register yet: deploy/keys/public is empty\n")


def test_the_gpu_file_reserves_one_for_each_site_and_keeps_its_limits() -> None:
    found = merged("docker-compose.yml", "docker-compose.gpu.yml", NODE_1_GPU="3", COMPOSE_PROFILES=SITES_HERE)
    for site, device in enumerate("030"):
        resources = found[f"clientapp-{site}"]["deploy"]["resources"]
        [reserved] = resources["reservations"]["devices"]
        assert (reserved["driver"], reserved["capabilities"], reserved["device_ids"]) == ("nvidia", ["gpu"], [device])
        assert resources["limits"].keys() == {"cpus", "memory", "pids"}
    assert all("reservations" not in found[name]["deploy"]["resources"] for name in ("superlink", "supernode-0"))


def test_a_site_s_own_data_is_mounted_and_told_to_the_node() -> None:
    site = {"SITE_NAME": "hospital-a", "SITE_NUMBER": "7", "SITE_DATA": "/srv/data"}
    found = merged("docker-compose.site.yml", **site)
    assert found["supernode"]["command"] == ["--node-config=partition-id=7 state-dir='/state' data-path='/data'"]
    assert ("/srv/data", "/data", True) in [
        (volume["source"], volume["target"], volume.get("read_only")) for volume in found["clientapp"]["volumes"]
    ]
    assert "data-path" not in merged("docker-compose.site.yml", **site | {"SITE_DATA": ""})["supernode"]["command"][0]


def test_nothing_in_the_files_turns_tls_off_towards_the_superlink() -> None:
    for name in (*FILES, "deploy/services.yml"):
        insecure = [line for line in (ROOT / name).read_text().splitlines() if "--insecure" in line]
        assert all("flower-superexec" in line for line in insecure), "only a site's executor, on its private network"
    assert len([True for command in services(FILES[0])["superlink"]["entrypoint"] if "--ssl" in command]) == 3
    assert "--enable-supernode-auth" in services(FILES[0])["superlink"]["entrypoint"]


def test_the_authority_s_key_is_no_secret_of_any_container() -> None:
    for name in FILES:
        assert "ca.key" not in (ROOT / name).read_text()


def test_the_image_s_user_is_the_one_that_gets_the_keys() -> None:
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    assert (
        tuple(int(number) for number in re.findall(r"^ARG [UG]ID=(\d+)$", dockerfile, re.MULTILINE)) == CONTAINER_USER
    )


def test_nothing_but_the_dependencies_reaches_the_build() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines == ["*", "!pyproject.toml", "!constraints.txt", "!deploy/requirements.py", "!deploy/strip.sh"]


def test_the_image_installs_all_dependencies_but_torch_which_comes_first() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    names = [re.split(r"[<>=\[]", line)[0] for line in requirements(text, ["report"])]
    assert {"flwr", "numpy", "safetensors", "matplotlib"} <= set(names)
    assert not {"torch", "torchvision"} & set(names)
    assert len(requirements(text, [])) == len(names) - 1


@pytest.mark.parametrize(("engine", "said"), [("exit 1", True), ("exit 0", False)])
def test_ci_goes_on_without_containers_where_no_engine_starts(tmp_path: Path, engine: str, said: bool) -> None:
    programs = {".ci/run": (ROOT / ".ci/run").read_text(), "tests/deployment/engine.sh": f"#!/bin/sh\n{engine}\n"}
    programs |= {"bin/docker": "#!/bin/sh\nexit 1\n", "bin/make": "#!/bin/sh\necho tested\nexit 3\n"}
    for name, text in programs.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    done = subprocess.run([tmp_path / ".ci/run"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "tested\n")
    assert ("the tests with containers will be skipped" in done.stderr) == said
