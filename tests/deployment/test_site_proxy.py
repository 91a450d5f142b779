"""A site behind a proxy: its SuperNode reaches the SuperLink through a tunnel (CONNECT), and in no other way."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from server_app.cli.config import make_plan
from server_app.cli.federation import LocalNode, local_federation, start_nodes
from server_app.cli.run import submit
from server_app.cli.superlink import RemoteConnection
from tests.conftest import ROOT
from tests.deployment.conftest import words
from tests.deployment.followed import FollowedRun

pytestmark = pytest.mark.slow
NODES = [LocalNode(0)]
NAME = "superlink"  # in the certificate, and a name that nobody but the proxy can resolve


class Tunnels:
    """A proxy that opens tunnels to one server, which it knows under a name, and notes who asked for what."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.asked: list[str] = []
        self.first_bytes: list[bytes] = []
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (more := client.recv(4096)):
            head += more
        self.asked.append(head.split(b"\r\n")[0].decode())
        if not self.asked[-1].startswith(f"CONNECT {NAME}:"):
            client.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            client.close()
            return
        server = socket.create_connection(self._target)
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=self._copy, args=(server, client), daemon=True).start()
        self._copy(client, server, note=True)

    def _copy(self, source: socket.socket, sink: socket.socket, note: bool = False) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                if note:
                    self.first_bytes.append(data[:1])
                    note = False
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def link(tmp_path: Path) -> Iterator[RemoteConnection]:
    with local_federation(tmp_path, NODES, {}) as local:
        local.wait_until_ready()
        yield RemoteConnection(**vars(local))


@pytest.mark.timeout(900)
def test_a_run_goes_through_the_tunnel_and_the_proxy_sees_tls_only(link: RemoteConnection, tmp_path: Path) -> None:
    host, port = link.address.split(":")
    proxy = Tunnels((host, int(port)))
    site = {**link.environment, "https_proxy": proxy.url, "HTTPS_PROXY": proxy.url}
    try:
        start_nodes(replace(link, address=f"{NAME}:{port}", environment=site), NODES)
        settings = words(
            num_server_rounds=1, federation__num_clients=1, federation__min_replies=1, audit__enabled=False
        )
        run = FollowedRun(link, submit(link, make_plan(settings, str(ROOT), tmp_path)))
        assert run.end() == ("finished:completed", "N/A")
        assert [line["replies"] for line in run.record.metrics] == [0, 1]
    finally:
        proxy.close()
    assert {*proxy.asked} == {f"CONNECT {NAME}:{port} HTTP/1.1"}
    assert {*proxy.first_bytes} == {b"\x16"}, "each tunnel begins with TLS's handshake"
    command = [program for program in link.processes.programs if f"{NAME}:{port}" in str(program.args)]
    assert len(command) == len(NODES), "the node knows the name only, which this machine cannot resolve"
    with pytest.raises(OSError, match=r"not known|resolution|No address"):
        socket.create_connection((NAME, int(port)), 1)
