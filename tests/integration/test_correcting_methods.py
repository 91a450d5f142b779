"""Methods that correct labels in whole runs: who learns labels, what leaves the client, what a resumed run does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, MetricRecord
from safetensors.numpy import load_file

from client_app.methods import METHODS
from server_app.validation.config import check
from tasks.client_data import client_dataset
from tasks.config import DEFAULTS
from tests.integration.conftest import QUICK, Play, Played

ROLES: dict[str, Any] = {
    "strategy__name": "tests.integration.fixed_roles:FixedRoles",
    "loss__name": "la-ce",
    "noise__rates_args": "max = 0.8",
    "run__early_stopping": 100,
}
METHOD_NAMES = ["masked-optim", "fedelc", "fednoro"]


def states(run: Played, client: int) -> dict[int, dict[str, np.ndarray]]:
    """A client's state files by round."""
    files = (run.path / "clients" / str(client)).glob("state-*.safetensors")
    return {int(path.stem.removeprefix("state-")): dict(load_file(path)) for path in files}


DETECTED = {
    "strategy__name": "noise-partition",
    "strategy__args": "warmup_rounds = 2",
    "federation__num_clients": 8,
    "federation__fraction_train": 0.5,
    "train__batch_size": 16,
    "train__epochs": 3,
    "partition__args": "alpha = 5.0, min_size = 60",
    "noise__rates": "groups",
    "noise__rates_args": "groups = [{clients = 4, rate = 0.0}, {clients = 4, rate = 0.8}]",
}


@pytest.mark.parametrize(
    "changes",
    [*({"method__name": name} for name in METHOD_NAMES), {"method__name": "masked-optim", **DETECTED}],
    ids=[*METHOD_NAMES, "detected"],
)
def test_three_rounds_and_three_more_equal_six(play: Play, changes: dict[str, Any]):
    chosen = {**ROLES, **changes}
    whole = play(num_server_rounds=6, **chosen)
    half = play(num_server_rounds=3, **chosen)
    resumed = play(num_server_rounds=6, run__resume=str(half.path), **chosen)
    assert resumed.metrics == whole.metrics
    assert resumed.weights() == whole.weights()
    learned = 0
    for client in range(chosen.get("federation__num_clients", 4)):
        first, second = (states(run, client) for run in (whole, resumed))
        assert max(first, default=0) == max(second, default=0)
        if first:
            last = max(first)
            assert np.array_equal(first[last]["label_logits"], second[last]["label_logits"])
            learned += last > 3
    assert (learned > 0) == (chosen["method__name"] != "fednoro")


def test_only_noisy_clients_learn_labels_and_only_after_detection(play: Play):
    run = play(**ROLES, method__name="masked-optim", run__checkpoint_every=100)
    assert [sorted(states(run, client)) for client in range(4)] == [[], [], [2, 3], [2, 3]]


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_labels_never_leave_the_client(play: Play, method: str):
    sent: list[dict[str, Any]] = []

    def note(client: int, message: Message, reply: Message) -> Message:
        if message.metadata.message_type == "train":
            sent.append(
                {name: dict(record) for name, record in reply.content.items() if isinstance(record, MetricRecord)}
            )
        return reply

    play(note, **ROLES, method__name=method)
    assert len(sent) == 12
    assert all(records.keys() == {"metrics"} for records in sent)
    assert all(records["metrics"].keys() == {"num-examples", "train-loss"} for records in sent)


def test_learned_labels_are_much_better_than_the_given_ones(play: Play):
    distribution = "groups = [{clients = 2, rate = 0.0}, {clients = 2, rate = 0.6}]"
    chosen = {**ROLES, "num_server_rounds": 8, "train__epochs": 5, "train__batch_size": 16, "noise__rates": "groups"}
    chosen |= {"noise__rates_args": distribution, "strategy__args": "warmup = 3", "method__name": "masked-optim"}
    run = play(**chosen)
    flat = {key.replace("__", ".").replace("_", "-"): value for key, value in chosen.items()}
    settings, method = check({**DEFAULTS, **QUICK, **flat}), METHODS.build("masked-optim")
    for client in (2, 3):
        share = client_dataset(settings, client)
        belief = method.corrected(states(run, client)[8])
        assert belief is not None
        before, after = share.data.labels == share.true_labels, belief.argmax(1) == share.true_labels
        assert before.mean() < 0.5
        assert after.mean() > before.mean() + 0.25


def test_a_method_that_answers_goes_on_from_its_answer(play: Play):
    chosen = {**ROLES, "strategy__args": "ask = true", "method__name": "tests.integration.fixed_roles:Answering"}
    run = play(**chosen, run__checkpoint_every=100)
    for client in range(4):
        counts = {server_round: state["rounds"].item() for server_round, state in states(run, client).items()}
        assert counts == {0: 10, 1: 20, 2: 30, 3: 31}  # the answer of round r is the state that round r starts from


def test_a_method_without_answers_says_so(play: Play, tmp_path: Path):
    answers: list[str] = []

    def note(client: int, message: Message, reply: Message) -> Message:
        if message.metadata.message_type == "query.method":
            answers.append(reply.error.reason if reply.has_error() else json.dumps(dict(reply.content["metrics"])))
        return reply

    with pytest.raises(Exception, match="content"):
        play(note, **{**ROLES, "strategy__args": "ask = true", "method__name": "masked-optim"})
    assert len(answers) == 4
    assert all("the client method MaskedOptim answers no questions" in answer for answer in answers)
