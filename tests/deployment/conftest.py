"""What tests of real deployments share: the in-process federation that they are compared with, and marked processes."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from server_app.cli import main
from tests.conftest import ROOT
from tests.deployment import gated
from tests.deployment.compose import Compose
from tests.deployment.scene import SharedScene, app_with
from tests.integration.conftest import QUICK, play
from tests.marked import marked

__all__ = ["marked", "play"]

BASE = os.environ.get("WINNOW_TEST_BASE", "base/python:3.11")  # tests/deployment/engine.sh makes it
GATED = Path(gated.__file__)
NOT_COPIED = (".git", ".venv", ".env", ".*_cache", ".hypothesis", "__pycache__", "keys", "runs", "federation", "data")
PACKAGE_PROBE = "python3 -m venv /tmp/venv && /tmp/venv/bin/pip download --no-deps --dest /tmp tomli-w"
collect_ignore = [
    "forking.py",
    "gated.py",
    "oversized.py",
    "remembering.py",
    "wrong_clock.py",
]  # they work where they are copied to
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests with containers, the slowest ones, after all others."""
    items.sort(key=lambda item: "compose" in getattr(item, "fixturenames", ()))


def words(**changes: object) -> list[str]:
    """Return the settings of an integration run as words of a command line; real nodes need Flower's own timeout."""
    given = {key.replace("__", ".").replace("_", "-"): value for key, value in changes.items()}
    settings = {key: value for key, value in QUICK.items() if key != "federation.round-timeout"} | given
    return [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in settings.items()]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedScene]:
    """The federation of real processes that tests share."""
    found = SharedScene(tmp_path_factory.mktemp("shared"))
    yield found
    found.close()


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The app with the methods of gated.py and oversized.py beside it."""
    return app_with(tmp_path_factory.mktemp("plugins") / "app", GATED, GATED.with_name("oversized.py"))


def why_no_engine() -> str:
    """Return why containers cannot be tested here, or an empty string."""
    if shutil.which("docker") is None:
        return "no containers: there is no docker; on Debian tests/deployment/engine.sh installs and starts an engine"
    needed = ("docker info", "docker compose version", f"docker image inspect {BASE}", f"docker run --rm {BASE} true")
    for command in needed:
        done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
        if done.returncode:
            return f"no containers: `{command}` fails ({done.stderr.strip()[-200:]}); see tests/deployment/engine.sh"
    return ""


def cpu_torch() -> Path:
    """Return the wheel of a torch without CUDA: an image with CUDA would be several gigabytes larger."""
    wheels = sorted(Path(os.environ.get("PIP_FIND_LINKS", "/nowhere")).glob("torch-*+cpu-*.whl"))
    if not wheels:
        pytest.skip("no containers: the folder PIP_FIND_LINKS has no CPU build of torch for their image")
    return wheels[-1]


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base image with this machine's way to its package registry: certificates, and the folder of wheels if any."""
    if reason := why_no_engine():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("base")
    shutil.copy(CERTIFICATES, folder)
    (folder / "wheels").mkdir()
    shutil.copy(cpu_torch(), folder / "wheels")
    lines = [f"FROM {BASE}", f"COPY ca-certificates.crt {CERTIFICATES}", "COPY wheels /tmp/wheels"]
    lines += [f"ENV PIP_CERT={CERTIFICATES} PIP_FIND_LINKS=/tmp/wheels"]
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


@pytest.fixture(scope="session")
def build(compose: Compose) -> Iterator["subprocess.Popen[str]"]:
    """The documented commands that make keys and begin to build the image; it writes into build.log."""
    keys, env = compose.folder / "deploy/keys", compose.folder / ".env"
    assert main(["keys", "--folder", str(keys), "create", "--env", str(env)]) == 0
    command, where = ["docker", "compose", "build"], compose.folder
    with (where / "build.log").open("w") as log:
        program = subprocess.Popen(command, cwd=where, env=compose.environment, stdout=log, stderr=log, text=True)
    yield program
    program.kill()


@pytest.fixture(scope="session", autouse=True)
def build_meanwhile(request: pytest.FixtureRequest) -> None:
    """Begin to build the image before the first test here, if one with containers will be run: others mostly wait."""
    if any("federation" in getattr(item, "fixturenames", ()) for item in request.session.items):
        with suppress(pytest.skip.Exception):  # where there is no engine, the tests that need one say so
            request.getfixturevalue("build")


@pytest.fixture(scope="session")
def federation(compose: Compose, build: "subprocess.Popen[str]", image: str, shared: SharedScene) -> Compose:
    """What the documented commands bring about: keys, image, and services that run."""
    shared.close()  # two federations side by side would wait for each other
    if build.wait(timeout=900) and not reaches_packages(image):
        pytest.skip(f"no containers: their image cannot be built, since in a container `{PACKAGE_PROBE}` fails")
    assert build.returncode == 0, (compose.folder / "build.log").read_text()
    compose.run("up", "--detach")
    return compose


def reaches_packages(image: str) -> bool:
    """Tell whether pip in a container, as in a build, gets a package that is not in the folder of wheels."""
    command = ["docker", "run", "--rm", image, "sh", "-c", PACKAGE_PROBE]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
