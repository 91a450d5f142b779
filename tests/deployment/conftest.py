"""What tests of real deployments share: the in-process federation that they are compared with, and marked processes."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.integration.conftest import QUICK, play
from tests.marked import marked

__all__ = ["marked", "play"]

BASE = os.environ.get("WINNOW_TEST_BASE", "base/python:3.11")  # tests/deployment/engine.sh makes it
NOT_COPIED = (".git", ".venv", ".env", ".*_cache", ".hypothesis", "__pycache__", "keys", "runs", "federation", "data")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def words(**changes: object) -> list[str]:
    """Return the settings of an integration run as words of a command line; real nodes need Flower's own timeout."""
    given = {key.replace("__", ".").replace("_", "-"): value for key, value in changes.items()}
    settings = {key: value for key, value in QUICK.items() if key != "federation.round-timeout"} | given
    return [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in settings.items()]


def why_no_engine() -> str:
    """Return why containers cannot be tested here, or an empty string."""
    for command in (["docker", "info"], ["docker", "compose", "version"], ["docker", "image", "inspect", BASE]):
        if shutil.which("docker") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            return f"no containers: `{' '.join(command)}` fails; on Debian tests/deployment/engine.sh starts an engine"
    return ""


def cpu_torch() -> Path:
    """Return the wheel of a torch without CUDA: an image with CUDA would be several gigabytes larger."""
    wheels = sorted(Path(os.environ.get("PIP_FIND_LINKS", "/nowhere")).glob("torch-*+cpu-*.whl"))
    if not wheels:
        pytest.skip("no containers: the folder PIP_FIND_LINKS has no CPU build of torch for their image")
    return wheels[-1]


@dataclass(frozen=True)
class Compose:
    """A copy of the checkout with keys, and compose in it, under a project name of its own."""

    folder: Path
    environment: dict[str, str]

    def run(self, *arguments: str, check: bool = True, timeout: float = 400) -> "subprocess.CompletedProcess[str]":
        """Run a compose command and return what it printed, on both streams."""
        command = ["docker", "compose", *arguments]
        stream = subprocess.STDOUT
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout
        return done


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base image with this machine's way to its package registry: certificates, and the folder of wheels if any."""
    if reason := why_no_engine():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("base")
    shutil.copy(CERTIFICATES, folder)
    (folder / "wheels").mkdir()
    shutil.copy(cpu_torch(), folder / "wheels")
    lines = [f"FROM {BASE}", f"COPY ca-certificates.crt {CERTIFICATES}", "COPY wheels /wheels"]
    lines += [f"ENV PIP_CERT={CERTIFICATES} PIP_FIND_LINKS=/wheels"]
    (folder / "Dockerfile").write_text("\n".join(lines))
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    tag = "winnow-test/base:latest"
    subprocess.run(["docker", "build", "--quiet", "--tag", tag, str(folder)], env=environment, check=True)
    return tag


@pytest.fixture(scope="session")
def compose(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """A copy of the checkout in which nothing has been built or made yet; at the end its containers are gone."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*NOT_COPIED), dirs_exist_ok=True)
    folder.chmod(0o755)  # the containers' user reads the app there
    project = f"winnow-test-{uuid.uuid4().hex[:8]}"
    own = {"COMPOSE_PROJECT_NAME": project, "WINNOW_IMAGE": "winnow-test:latest", "WINNOW_BASE": image}
    own |= {"WINNOW_TORCH": "torch==" + cpu_torch().name.split("-")[1], "WINNOW_PORT": "0"}
    found = Compose(folder, {**os.environ, **own})
    yield found
    found.run("down", "--volumes", "--timeout", "2", check=False)
