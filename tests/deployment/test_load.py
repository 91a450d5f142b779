"""The load test's nodes are nodes for the SuperLink: a run with two of them completes, and its cost is seen."""

from pathlib import Path

import pytest

from benchmarks.load import play

pytestmark = pytest.mark.slow


@pytest.mark.timeout(900)
def test_a_federation_of_light_nodes_plays_its_rounds(tmp_path: Path) -> None:
    [found] = play(2, 1, 300.0, ["model.name=mlp"], tmp_path / "logs")
    assert (found.nodes, found.round, found.replies) == (2, 1, 2)
    assert found.superlink_mb > 50
    assert found.database_mb > 0
    assert found.serverapp_cpu > 0
