"""Simulation or deployment is decided in one place at each entry, and nothing that travels decides it."""

import ast
import json
import sys
from functools import cache
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid
from flwr.superlink.grid import InMemoryGrid
from flwr.superlink.grid.http_grid import HttpGrid

import tests.messages  # noqa: F401  gives this process the ids that Flower's messages need
from client_app.app import app as client_app
from client_app.node import current_mode, detect_mode, simulate_here, with_mode
from server_app.app import mode_of
from tasks.config import DEFAULTS
from tasks.protocol import RECORD, MessageHeader, Mode
from tests.conftest import ROOT

FILES = [
    path for package in ("tasks", "strategies", "client_app", "server_app") for path in (ROOT / package).rglob("*.py")
]
DECISIONS = {"mode_of": "server_app/app.py", "detect_mode": "client_app/node.py"}
SIGNS = {
    "InMemoryGrid": {"server_app/app.py"},
    "is_initialized": {"client_app/node.py"},
    "simulate_here": {"server_app/engine/worker.py"},
}


@cache
def names(path: Path) -> list[tuple[str, bool]]:
    """Every name, attribute and string constant of a file, and whether it is what a call calls."""
    tree = ast.parse(path.read_text())
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    named = {ast.Name: "id", ast.Attribute: "attr", ast.Constant: "value", ast.alias: "name"}
    return [
        (str(getattr(node, named[type(node)])), id(node) in called) for node in ast.walk(tree) if type(node) in named
    ]


@pytest.mark.parametrize("name", DECISIONS)
def test_the_mode_is_decided_by_one_call(name: str) -> None:
    used = [(path.relative_to(ROOT).as_posix(), called) for path in FILES for n, called in names(path) if n == name]
    assert used == [(DECISIONS[name], True)]


@pytest.mark.parametrize("sign", SIGNS)
def test_nothing_else_guesses_it(sign: str) -> None:
    assert {path.relative_to(ROOT).as_posix() for path in FILES for n, _ in names(path) if n == sign} == SIGNS[sign]


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(InMemoryGrid, Mode.SIMULATION), (HttpGrid, Mode.DEPLOYMENT), (type("Other", (), {}), Mode.DEPLOYMENT)],
)
def test_the_server_knows_it_by_flowers_grid(kind: type[Grid], mode: Mode) -> None:
    assert mode_of(kind.__new__(kind)) is mode


@pytest.mark.parametrize(("ray", "mode"), [(None, Mode.DEPLOYMENT), (False, Mode.DEPLOYMENT), (True, Mode.SIMULATION)])
def test_a_client_knows_it_by_its_process(ray: bool | None, mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    module = None if ray is None else SimpleNamespace(is_initialized=lambda: ray)
    monkeypatch.setitem(sys.modules, "ray", module)  # type: ignore[arg-type]
    assert detect_mode() is mode


def test_a_worker_of_ours_is_told_by_its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client_app.node._SIMULATED", Event())
    simulate_here()
    assert detect_mode() is Mode.SIMULATION


def message(**changes: Any) -> Message:
    header = {**MessageHeader(client=0, run_dir="/the/server's/folder").record(), **changes}
    return Message(RecordDict({RECORD: ConfigRecord(header)}), dst_node_id=1, message_type="query.identity")


def test_the_mode_holds_for_one_message_and_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Mode] = []

    def look(message: Message, context: Context) -> Message:
        seen.append(current_mode())
        raise ValueError("broken")

    monkeypatch.setattr("client_app.node.detect_mode", lambda: Mode.SIMULATION)
    with pytest.raises(ValueError, match="broken"):
        with_mode(message(), context(), look)
    assert [*seen, current_mode()] == [Mode.SIMULATION, Mode.DEPLOYMENT]


def context() -> Context:
    settings = {**DEFAULTS, "federation.num-clients": 4, "train.device": "cpu"}
    return Context(1, 1, {"partition-id": 0}, RecordDict(), settings)


def test_a_node_does_not_believe_the_server_that_it_is_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    claims = {"mode": "simulation", "simulation": True, "simulated": True}
    metrics = client_app(message(**claims), context()).content.metric_records["metrics"]
    assert not {"noise-rate", "class-counts"} & metrics.keys()
    refused = client_app(message(overrides=json.dumps({"mode": "simulation"})), context())
    assert "unknown key 'mode'" in refused.error.reason
    monkeypatch.setattr("client_app.node.detect_mode", lambda: Mode.SIMULATION)
    metrics = client_app(message(), context()).content.metric_records["metrics"]
    assert {"noise-rate", "class-counts"} <= metrics.keys()
