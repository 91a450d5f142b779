"""Methods with several networks, a shared filter or neighbours, in whole runs: they learn, and are resumed."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from tasks.config import ConfigError
from tests.integration.conftest import Play
from tests.integration.test_extra_arrays import sent

METHODS = {
    "co-teaching": "ramp_rounds = 2",
    "co-teaching-plus": "ramp_rounds = 2, agreement_rounds = 1",
    "feddiv": "warmup_rounds = 1",
    "dividemix": "warmup_rounds = 1, average_losses = 2",
    "fedned": "confidence = 0.5",
    "fedrn": "",
}


def options(method: str, **changes: Any) -> dict[str, Any]:
    """A run of a method in which something new happens in the second round."""
    own: dict[str, Any] = {"method__name": method, "method__args": METHODS[method], "loss__name": "ce"}
    own["strategy__aggregator"] = "mean"
    if method == "fedrn":
        own |= {"strategy__name": "fedrn", "strategy__args": "warmup_rounds = 1, neighbours = 2"}
    if method == "fedned":
        own |= {"strategy__name": "fedned", "strategy__args": "warmup_rounds = 1, threshold = 1.0, rate = 1e-4"}
    fast = {"audit__enabled": False, "train__batch_size": 16, "train__epochs": 2, "noise__name": "none"}
    return own | fast | changes


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_and_a_resumed_run_equals_one_that_was_not_interrupted(play: Play, method: str):
    whole = play(**options(method, num_server_rounds=4))
    assert whole.metrics[-1]["accuracy"] > whole.metrics[0]["accuracy"] + 0.2
    half = play(**options(method, num_server_rounds=2))
    again = play(**options(method, num_server_rounds=4, run__resume=str(half.path)))
    assert again.metrics == whole.metrics
    assert again.weights() == whole.weights()


def is_near(first: Any, second: Any) -> bool:
    """The server keeps steps from the global model, so that the last bit may be another one."""
    return bool(np.abs(first - second).max() < 1e-6)


def test_a_client_is_sent_models_that_other_clients_have_trained(play: Play):
    trained: dict[int, Any] = {}
    seen: list[set[int]] = []

    def note(client: int, message: Message, reply: Message) -> Message:
        if message.metadata.message_type != "train":
            return reply
        if int(message.metadata.group_id) == 1:
            trained[client] = sent(reply)
        else:
            down = sent(message)
            assert "given/scores" in down
            assert not any(name.startswith("given/") for name in sent(reply))
            models = [down[f"given/network-{number}/1.weight"] for number in (1, 2)]
            seen.append({one for one, own in trained.items() if any(is_near(own["1.weight"], got) for got in models)})
            assert client not in seen[-1]
        return reply

    play(note, **options("fedrn", num_server_rounds=2))
    assert [len(found) for found in seen] == [2] * 4


def test_the_strategy_and_the_method_of_fedrn_ask_for_each_other(play: Play):
    with pytest.raises(ConfigError, match="strategy fedrn needs what the method sgd does not send"):
        play(strategy__name="fedrn", method__name="sgd")


@pytest.mark.parametrize("method", ["feddiv", "dividemix", "fedrn"])
def test_inputs_that_are_words_are_refused(play: Play, method: str):
    with pytest.raises(ConfigError, match=f"method {method} mixes inputs"):
        play(**options(method, task__name="ag-news", model__name="auto"))
