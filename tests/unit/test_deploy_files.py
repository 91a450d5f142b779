"""What the files for containers promise, read from the files themselves."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.requirements import requirements
from server_app.command.keys import CONTAINER_USER

ROOT = Path(__file__).resolve().parents[2]
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
    assert lines == ["*", "!pyproject.toml", "!constraints.txt", "!deploy/requirements.py"]


def test_the_image_installs_all_dependencies_but_torch_which_comes_first() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    names = [re.split(r"[<>=\[]", line)[0] for line in requirements(text, ["report"])]
    assert {"flwr", "numpy", "safetensors", "matplotlib"} <= set(names)
    assert not {"torch", "torchvision"} & set(names)
    assert len(requirements(text, [])) == len(names) - 1
