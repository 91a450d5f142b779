"""No kind of bad reply stops a round or reaches the model, whatever the strategy; see ``hostile_table``."""

import gc
import logging
import re
from collections.abc import Iterator

import pytest
from flwr.app import Message

from strategies.aggregators import AGGREGATORS
from tasks import protocol
from tasks.protocol import ARRAYS, RECORD
from tests.integration.conftest import Play, Played
from tests.integration.hostile_kinds import HONEST, KINDS, SILENT, Kind, Letter
from tests.integration.hostile_table import ALL, BAD, FAMILIES, ONE, WIRED, Federation, verdict
from tests.messages import answer

OF_ANY_MODEL = [
    "silence",
    "exception",
    "reason with escapes",
    "arrays twice",
    "examples negative",
    "examples missing",
    "metrics missing",
    "metric nan",
    "reply to an old round",
    "layout missing",
    "bytes truncated",
    "pickle",
]


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """Keep Flower's strategies from logging every call, and from searching all of this process for garbage."""
    answer(0)  # sets the identity that messages need
    logger = logging.getLogger("flwr")
    before = logger.level
    logger.setLevel(logging.ERROR)
    gc.freeze()
    yield
    gc.unfreeze()
    logger.setLevel(before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_round_with_a_bad_reply_is_the_round_without_it(kind: str):
    assert verdict(ONE, KINDS[kind]) == "survived"


@pytest.mark.parametrize("kind", WIRED)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_strategy_is_given_a_bad_reply(family: str, kind: str):
    assert verdict(FAMILIES[family], KINDS[kind]) == "survived"


def test_every_rule_is_in_the_table():
    assert {f"robust, {entry.name}" for entry in AGGREGATORS.entries()} <= set(ALL)
    assert {ONE, *FAMILIES.values()} <= set(ALL)


def test_the_table_tells_harm_from_survival():
    far = Kind(lambda one: [one.write({name: array + array.dtype.type(9) for name, array in one.arrays.items()})], "")
    assert verdict("robust, mean", far) == "another model"
    assert verdict("flower-fedavg", far) == "another model"
    unnamed = Kind(SILENT.send, "not finite")
    assert verdict("robust, mean", unnamed) == "reason: 'no reply in time'"
    assert verdict("robust, mean", Kind(KINDS["nan"].send, KINDS["nan"].reason, kept=True)) == "another model"


@pytest.mark.parametrize("name", ["robust, geometric-median", "flower-fedavg"])
def test_a_client_that_was_not_asked_is_named_and_ignored(name: str):
    honest, crowded = Federation(name, "float32"), Federation(name, "float32")
    honest.play(1, HONEST)
    report = crowded.play(1, HONEST, extra=[answer(77, {**crowded.run.arrays})])
    assert report.quarantined == {77: "was not asked in this round"}
    assert crowded.state() == honest.state()


def test_an_ignored_reply_is_logged_with_its_sender(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, "flwr"):
        verdict("robust, mean", KINDS["reply to an old round"])
    assert f"Node {1000 + BAD} answered a message that is not open" in caplog.text


@pytest.mark.parametrize("name", ["robust", "flower-fedadam", "examples.norm_clipping:NormClipping"])
def test_a_run_with_a_new_kind_in_every_round_is_the_run_without_the_replies(
    play: Play, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("server_app.transport.client_grid.poll_seconds", lambda *_: 0.01)

    def run(kinds: list[Kind]) -> Played:
        earlier: dict[int, Message] = {}

        def tamper(client: int, message: Message, reply: Message) -> Message | list[Message]:
            server_round = int(message.metadata.group_id or 0)
            if client != BAD or message.metadata.message_type != "train" or server_round < 2:
                return reply
            return kinds[server_round - 2].send(letter(message, earlier.setdefault(1, message), reply))

        settings = {"strategy__args": "eta = 0.05"} if name == "flower-fedadam" else {}
        rounds = 1 + len(kinds)
        return play(tamper, strategy__name=name, num_server_rounds=rounds, federation__round_timeout=0.02, **settings)

    kinds = [KINDS[kind] for kind in OF_ANY_MODEL]
    hostile = run(kinds)
    printed = capsys.readouterr().out
    silent = run([SILENT] * len(kinds))
    assert hostile.metrics == silent.metrics
    assert hostile.weights() == silent.weights()
    assert hostile.metrics[-1]["accuracy"] > hostile.metrics[0]["accuracy"]
    lines = {line["round"]: line for line in hostile.lines("clients.jsonl") if line["client"] == BAD}
    for server_round, kind in enumerate(kinds, 2):
        reason = lines[server_round]["quarantine"]
        assert re.search(kind.reason, reason)
        assert f"client {BAD} set aside: {reason}" in printed


def letter(message: Message, earlier: Message, reply: Message) -> Letter:
    """Return a real client's reply in the form that the kinds change."""
    flat = protocol.read_npy(reply.content.array_records["arrays"][ARRAYS].data)
    arrays = protocol.named_views(flat, str(reply.content.config_records[RECORD]["layout"]))
    return Letter(message, earlier, arrays, dict(reply.content.metric_records["metrics"]))
