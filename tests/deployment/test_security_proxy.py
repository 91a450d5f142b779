"""A proxy before the SuperLink: sites work through it, and only their own requests, of bounded size, come in."""

import shutil
import ssl
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from server_app.cli.config import make_plan
from server_app.cli.federation import HERE, LocalNode, local_federation, start_nodes
from server_app.cli.keys import KeyFolder
from server_app.cli.run import submit
from server_app.cli.superlink import RemoteConnection, free_port
from server_app.transport.replies import PIECE
from tests.conftest import ROOT
from tests.deployment.conftest import words
from tests.deployment.followed import FollowedRun, wait_for

pytestmark = pytest.mark.slow
NODES = [LocalNode(0), LocalNode(1)]


def configuration(keys: KeyFolder, superlink: str, port: int, scratch: Path) -> str:
    """The configuration as deployed, with this machine's addresses and paths."""
    text = (ROOT / "deploy/nginx.conf").read_text().replace("/tmp/", f"{scratch}/")
    places = {"superlink.crt": keys.superlink("crt"), "superlink.key": keys.superlink("key"), "ca.crt": keys.authority}
    for name, path in places.items():
        text = text.replace(f"/run/secrets/{name}", str(path))
    return text.replace("listen 8000", f"listen {HERE}:{port}").replace("//superlink:8000", f"//{superlink}")


def status(address: str, path: str, body: bytes, authority: Path) -> int:
    """What the proxy answers to a request."""
    context = ssl.create_default_context(cafile=str(authority))
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(f"https://{address}{path}", body, {"content-type": "application/protobuf"})
    try:
        return int(direct.open(request, timeout=30).status)
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError:
        return 0


@pytest.mark.timeout(900)
def test_sites_work_through_the_proxy_and_nobody_else_does(tmp_path: Path) -> None:
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if nginx is None:
        pytest.skip("nginx is not installed (Debian: apt-get install nginx-light)")
    with local_federation(tmp_path, NODES, {}) as local:
        link = RemoteConnection(**vars(local))
        local.wait_until_ready()
        keys, port = KeyFolder(link.home / "keys"), free_port()
        (tmp_path / "nginx.conf").write_text(configuration(keys, link.address, port, tmp_path))
        with (tmp_path / "nginx.log").open("w") as output:
            command = [nginx, "-c", str(tmp_path / "nginx.conf"), "-e", "stderr", "-g", "daemon off;"]
            link.processes.start(command, link.environment, tmp_path, output)
        outside = replace(link, address=f"{HERE}:{port}")
        wait_for(lambda: status(outside.address, "/", b"", keys.authority) == 403, "nginx is there")
        for path in ("/v1/control/list-runs", "/v1/control/register-node", "/v1/runtime/pull-object", "/health"):
            assert status(outside.address, path, b"", keys.authority) == 403
        for path in ("/v1/fleet/../control/list-runs", "/v1/fleet/%2e%2e/control/list-runs"):
            assert status(outside.address, path, b"", keys.authority) == 403
        push = "/v1/fleet/push-object"
        assert status(outside.address, push, b"x" * (PIECE + 2**10), keys.authority) not in (403, 413)
        assert status(outside.address, push, b"x" * 2 * PIECE, keys.authority) == 413
        start_nodes(outside, NODES)
        model = {"model__args": "hidden = 30000"}  # 9 MB: two requests at least
        settings = words(num_server_rounds=1, federation__num_clients=2, audit__enabled=False, **model)
        run = FollowedRun(link, submit(link, make_plan(settings, str(ROOT), tmp_path)))
        assert run.end() == ("finished:completed", "N/A")
        assert [line["replies"] for line in run.record.metrics] == [0, 2]
        told = [program for program in link.processes.programs if outside.address in str(program.args)]
        assert len(told) == len(NODES), "the nodes know the proxy only"
        assert "[crit]" not in (tmp_path / "nginx.log").read_text()
