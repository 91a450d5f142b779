"""What a client writes is shown as one printable line of bounded length, wherever it ends up."""

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message, MetricRecord

from tests.integration.conftest import Play

HOSTILE = "\x1b[2J\x1b]0;owned\x07round 9/9\r\n<script>alert(1)</script>\u202e\u2028" + "x" * 5000
LINE = 600  # the longest line that holds a client's text, with what is said around it
SETTINGS = {
    "num_server_rounds": 3,
    "federation__num_clients": 6,
    "partition__args": "alpha = 5.0, min_size = 20",
    "strategy__name": "noise-partition",
    "strategy__args": "warmup_rounds = 1",
    "loss__name": "ce",
}


def texts(value: Any) -> list[str]:
    """Every text in a value read from JSON, with the names of its fields."""
    if isinstance(value, dict):
        return [*value, *(text for item in value.values() for text in texts(item))]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


def recorded(run_dir: Path) -> list[str]:
    """Every text in the records of a run."""
    lines = [line for name in ("metrics.jsonl", "clients.jsonl") for line in (run_dir / name).read_text().splitlines()]
    return [text for line in [*lines, (run_dir / "status.json").read_text()] for text in texts(json.loads(line))]


@pytest.mark.parametrize("kind", ["query.identity", "train", "query.profile", "query.audit", "evaluate"])
def test_the_text_of_an_error_is_one_printable_line(
    play: Play, kind: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(client: int, message: Message, reply: Message) -> Message:
        hostile = client == 1 and message.metadata.message_type == kind
        return Message(Error(2, HOSTILE), reply_to=message) if hostile else reply

    run = play(fail, **SETTINGS, federation__fraction_evaluate=1.0)
    shown = [*capsys.readouterr().out.splitlines(), *(line for text in caplog.messages for line in text.split("\n"))]
    held = [line for line in [*shown, *recorded(run.path)] if "script" in line]
    assert held or kind == "evaluate", "it is shown somewhere"
    assert all(line.isprintable() and len(line) < LINE for line in [*held, *recorded(run.path)])
    page = (run.path / "report.html").read_text()
    assert "<script>alert" not in page
    assert "\x1b" not in page + "".join(shown)


def test_the_names_of_metrics_are_printable_and_short(play: Play) -> None:
    def name(_client: int, message: Message, reply: Message) -> Message:
        if message.metadata.message_type == "train":
            record = reply.content.metric_records["metrics"]
            more = {HOSTILE: 1.0, "x" * 101: 1.0, "\x1b[2J": 1.0, "kept": 1.0}
            reply.content["metrics"] = MetricRecord({**record, **more})
        return reply

    run = play(name, **SETTINGS)
    added = {key for key in run.metrics[-1] if key.startswith("train_")}
    assert added == {"train_loss", "train_kept"}
