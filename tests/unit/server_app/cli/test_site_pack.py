"""Bundle of a site: what is in it, that nothing secret is, that it is the checkout's, and that its scripts work."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from server_app.cli import main, site_pack
from server_app.cli.keys import KeyFolder
from server_app.cli.site_compose import extended, packed_place
from tests.conftest import ROOT

HOST = "fl.example.org"
ADDRESS = ("--superlink", f"{HOST}:8000")
IMAGE = ("--image", "registry.example.org/winnow:1")
# An engine that knows one image and runs a container's command here, without its isolation.
DOCKER = """#!/bin/sh
echo "$*" >> {folder}/asked
case "$*" in
    "image inspect --format {{{{.Id}}}} {{{{.Config.User}}}} winnow:latest") echo sha256:new 4321:8765 ;;
    "image inspect --format {{{{.Id}}}} winnow:latest") cat {folder}/loaded ;;
    "image inspect"*) echo "No such image: ${{6:-$5}}" >&2; exit 1 ;;
    "load --input image.tar.gz"|pull*) echo sha256:new > {folder}/loaded ;;
    save*) echo "an image" ;;
    run*) shift $(($# - 5)); cd {folder} && exec {python} setup/make_keys.py keys "$3" "$4" "$5" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A coordinator's checkout with keys, as far as it is needed."""
    for name in ("docker-compose.site.yml", "deploy/services.yml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "deploy/site", tmp_path / "deploy/site")
    KeyFolder(tmp_path / "deploy/keys").create([HOST], [])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a ``docker`` before all others."""
    program = folder / "bin/docker"
    program.parent.mkdir()
    program.write_text(DOCKER.format(folder=folder, python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def pack(*options: str) -> Path:
    assert main(["site", "pack", "hospital-a", *ADDRESS, "--number", "3", *options]) == 0
    return Path("deploy/packed/hospital-a")


def files(folder: Path) -> set[str]:
    """What is in a bundle but the code."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith("app/")}


PLAIN = {".env", "README.md", "SHA256SUMS", "ca.crt", "docker-compose.yml", "setup.sh"}
PLAIN |= {"setup/make_keys.py", "setup/certificates.py"}


def test_a_bundle_has_what_a_site_needs_and_no_private_key(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = pack(*IMAGE)
    assert files(folder) == PLAIN
    assert (folder / "ca.crt").read_bytes() == (checkout / "deploy/keys/ca.crt").read_bytes()
    everything = b"".join((folder / name).read_bytes() for name in files(folder))
    assert b"PRIVATE KEY-----\n" not in everything
    assert (checkout / "deploy/keys/operator.token").read_bytes() not in everything
    assert not (checkout / "deploy/keys/nodes").exists(), "the coordinator has no key of the site"
    settings = (folder / ".env").read_text().splitlines()
    assert {"SITE_NAME=hospital-a", "SITE_NUMBER=3", f"SITE_SUPERLINK={HOST}:8000", f"WINNOW_IMAGE={IMAGE[1]}"} < {
        *settings
    }
    assert "hospital-a.pub" in capsys.readouterr().out


def test_the_compose_file_is_the_checkout_s_without_a_build(checkout: Path) -> None:
    whole = yaml.safe_load((pack(*IMAGE) / "docker-compose.yml").read_text())
    declared = yaml.safe_load((checkout / "docker-compose.site.yml").read_text())
    for name, service in declared["services"].items():
        made = dict(whole["services"][name])
        assert made.pop("pull_policy") == "missing"
        expected = extended(service, checkout)
        mounted = [packed_place(volume) for volume in expected.get("volumes", [])]
        expected = {key: value for key, value in expected.items() if key not in ("build", "pull_policy", "volumes")}
        assert made == expected | {"volumes": mounted}
        assert made["cap_drop"] == ["ALL"], "what is inherited from services.yml is there"
        assert made["read_only"] is True
    assert whole["secrets"]["node.key"] == {"file": "keys/node.key"}
    for key in ("networks", "volumes"):
        assert whole[key] == declared[key]
    assert whole["name"] == "winnow-hospital-a", "two sites of one machine are two projects"


def test_compose_understands_the_same_by_it(checkout: Path) -> None:
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], check=False).returncode:
        pytest.skip("docker compose is not installed")

    def understood(folder: Path, **environment: str) -> dict[str, dict[str, object]]:
        command = ["docker", "compose", "config", "--format", "json"]
        output = subprocess.check_output(command, cwd=folder, env={**os.environ, **environment}, text=True)
        for own in (f"{folder.absolute()}/app/", f"{folder.absolute()}/"):  # where each has the code
            output = output.replace(own, "/here/")
        services = json.loads(output)["services"]
        return {name: {**found, "build": None, "pull_policy": None} for name, found in services.items()}

    bundle = pack(*IMAGE)
    (checkout / ".env").write_text((bundle / ".env").read_text() + "COMPOSE_FILE=docker-compose.site.yml\n")
    assert understood(bundle, SITE_DATA="/srv/data") == understood(checkout, SITE_DATA="/srv/data")


def test_a_key_made_here_is_packed_only_when_asked_for(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = pack(*IMAGE, "--with-key", "--tar")
    assert files(folder) == PLAIN | {"keys/node.key", "keys/node.secret", "keys/hospital-a.pub"}
    assert stat.S_IMODE((folder / "keys/node.key").stat().st_mode) == 0o600
    assert (folder / "keys/hospital-a.pub").read_bytes() == (
        checkout / "deploy/keys/public/hospital-a.pub"
    ).read_bytes()
    packed = folder.with_suffix(".tar")
    assert stat.S_IMODE(packed.stat().st_mode) == 0o600
    with tarfile.open(packed) as archive:
        assert "winnow-hospital-a/keys/node.key" in archive.getnames()
    assert "PRIVATE KEY is in it" in capsys.readouterr().out
    assert "came in this folder" in (folder / "README.md").read_text()


def test_setup_brings_the_image_and_makes_a_key_that_the_coordinator_can_admit(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(checkout, monkeypatch)
    folder = pack("--save")
    assert files(folder) == PLAIN | {"image.tar.gz", "image.id"}
    assert "pull_policy: never" in (folder / "docker-compose.yml").read_text()
    assert {"WINNOW_UID=4321", "WINNOW_GID=8765"} < {*(folder / ".env").read_text().splitlines()}, "those of the image"
    site = checkout / "at-the-site"
    shutil.copytree(folder, site)
    monkeypatch.setenv("PATH", f"{site / 'bin'}:{os.environ['PATH']}")
    engine(site, monkeypatch)
    uid, gid = os.getuid(), os.getgid()
    settings = (site / ".env").read_text().replace("=4321", f"={uid}").replace("=8765", f"={gid}")
    (site / ".env").write_text(settings)
    first = subprocess.run(["sh", site / "setup.sh"], capture_output=True, text=True, check=True)
    keys = site / "keys"
    private = serialization.load_ssh_private_key((keys / "node.key").read_bytes(), None)
    assert private.public_key() == serialization.load_ssh_public_key((keys / "hospital-a.pub").read_bytes())
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in keys.iterdir()}
    assert modes == {"node.key": 0o600, "node.secret": 0o600, "hospital-a.pub": 0o644}
    asked = (site / "asked").read_text().splitlines()
    assert "load --input image.tar.gz" in asked
    [made] = [line for line in asked if line.startswith("run ")]
    assert made.startswith("run --rm --user 0 --network none --read-only ")
    if shutil.which("ssh-keygen"):
        shown = subprocess.check_output(["ssh-keygen", "-lf", keys / "hospital-a.pub"], text=True).split()[1]
        assert f"Fingerprint: {shown}" in first.stdout
    before = (keys / "node.key").read_bytes()
    subprocess.run(["sh", site / "setup.sh"], capture_output=True, check=True)
    assert (keys / "node.key").read_bytes() == before
    (site / "loaded").write_text("sha256:old\n")  # a newer version comes under the same name
    subprocess.run(["sh", site / "setup.sh"], capture_output=True, check=True)
    assert (site / "asked").read_text().count("load --input") == 2, "what is there is not loaded again, another one is"
    (keys / "node.secret").unlink()
    lost = subprocess.run(["sh", site / "setup.sh"], capture_output=True, text=True, check=False)
    assert lost.returncode != 0
    assert "one is missing" in lost.stderr
    assert (keys / "node.key").read_bytes() == before


def test_setup_refuses_a_bundle_that_was_changed_on_the_way(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(checkout, monkeypatch)
    folder = pack(*IMAGE)
    (folder / ".env").write_text((folder / ".env").read_text() + "SITE_DATA=/srv\n")  # the site's own file
    compose = folder / "docker-compose.yml"
    compose.write_text(compose.read_text() + "# changed\n")
    done = subprocess.run(["sh", folder / "setup.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "docker-compose.yml: FAILED" in done.stdout + done.stderr
    assert "not as the coordinator has packed it" in done.stderr
    assert not any((folder / "keys").iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["../x", *ADDRESS, "--number", "0", *IMAGE], "the name of a site is made of a-z, 0-9 and '-', got '../x'"),
        (["a", *ADDRESS, "--number", "-1", *IMAGE], "--number: expected 0 or more, got -1"),
        (["a", "--superlink", "else.org:8000", "--number", "0", *IMAGE], "not valid for else.org, only for superlink,"),
        (
            ["a", "--superlink", "else.org:8000", "--number", "0", *IMAGE],
            "winnow keys renew-server --host fl.example.org --host else.org",
        ),
        (["a", "--superlink", "superlink:8000", "--number", "0", *IMAGE], "superlink leads a site to its own machine"),
        (["a", "--superlink", "127.0.0.1:8000", "--number", "0", *IMAGE], "127.0.0.1 leads a site to its own machine"),
        (["a", *ADDRESS, "--number", "0", *IMAGE, "--output", "deploy"], "deploy is there already: remove it"),
        (["a", *ADDRESS, "--number", "0", *IMAGE, "--keys", "none"], "make it with  winnow keys create --host fl."),
        (["a", *ADDRESS, "--number", "0", "--save", "other"], "docker says of other: No such image: other; build it"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_written(
    arguments: list[str], said: str, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine(checkout, monkeypatch)
    assert main(["site", "pack", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (checkout / "deploy/packed").exists()


def test_all_problems_are_told_at_once_also_that_there_is_no_engine_or_no_checkout(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(site_pack.shutil, "which", lambda _: None)
    (checkout / "docker-compose.site.yml").unlink()
    assert main(["site", "pack", "A", *ADDRESS, "--number", "-3", "--save"]) == 2
    said = capsys.readouterr().err
    assert "there is no docker here: run this where the image was built, or give --image" in said
    assert "docker-compose.site.yml is not here: run this in the checkout of the coordinator" in said
    assert len(said.strip().splitlines()) == 5, "a line for each"


def test_the_engine_is_asked_once_about_the_image(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(checkout, monkeypatch)
    pack("--save")
    assert [line.partition(" ")[0] for line in (checkout / "asked").read_text().splitlines()] == ["image", "save"]


@pytest.mark.parametrize(
    ("env", "noted"),
    [
        ("WINNOW_UID=1\n", True),
        ("WINNOW_BIND=127.0.0.1\n", True),
        ("WINNOW_BIND=127.0.0.1\nWINNOW_BIND='0.0.0.0'\n", False),
        ("WINNOW_BIND=192.0.2.7\n", False),
        (None, False),
    ],
)
def test_a_superlink_that_no_site_reaches_is_noted(
    env: str | None, noted: bool, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if env is not None:
        (checkout / ".env").write_text(env)
    pack(*IMAGE)
    assert ("Write WINNOW_BIND=0.0.0.0 into .env" in capsys.readouterr().out) == noted


def test_the_site_s_own_command_runs_the_code_that_came_with_the_bundle(checkout: Path) -> None:
    folder = pack(*IMAGE)
    code = folder / "app"
    for package in ("server_app", "client_app", "strategies", "tasks"):
        packed = {path.relative_to(code): path.read_bytes() for path in (code / package).rglob("*") if path.is_file()}
        assert packed == {name: (ROOT / name).read_bytes() for name in packed}
        assert {path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py")} <= packed.keys()


def test_an_image_that_cannot_be_saved_leaves_no_half_bundle(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine(checkout, monkeypatch)
    program = checkout / "bin/docker"
    program.write_text(program.read_text().replace('echo "an image"', "echo gone >&2; exit 1"))
    assert main(["site", "pack", "a", *ADDRESS, "--number", "0", "--save"]) == 2
    assert "docker save winnow:latest failed: gone" in capsys.readouterr().err
    assert not (checkout / "deploy/packed/a").exists()
