"""Models that cannot travel, or cannot be trained on the batches that occur: what is said before any client starts."""

from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from server_app.privacy import model_issues
from server_app.validation.config import check
from server_app.validation.model import one_example_issues, weights_issues
from tasks.config import ConfigError
from tasks.images import Digits
from tasks.models import MODELS
from tasks.settings import PrivacySettings, Settings, TrainSettings
from tests import odd_models

SOUND = ["Odd", "Tied", "Counter", "Running", "Hooked", "ScalarAndEmpty", "TensorExtraState", "Normed"]
LINEAR = "linear.weight, linear.bias"
UNSOUND = {
    "Bfloat16": f"{LINEAR}: bfloat16, which does not travel; build the model in float32; train.precision = 'bfloat16' "
    "trains it in bfloat16",
    "Lazy": f"{LINEAR}: no shape before the first batch; give the layer its sizes, or run a batch where the model is "
    "built",
    "ExtraState": "_extra_state: extra state of type dict, and only tensors travel; keep it in buffers, or let "
    "get_extra_state return a tensor",
    "Complex": "phase: complex64, which does not travel; keep real and imaginary parts (torch.view_as_real), and join "
    "them in forward",
    "Integers": "codes: a parameter of int64, which cannot be trained or averaged; make it a buffer (register_buffer)",
    "Sparse": "graph: torch.sparse_coo, and only dense tensors travel; keep it dense (to_dense)",
    "Meta": f"{LINEAR}: no values, it is on the device meta; build the model on the CPU",
    "Expanded": "places: several elements in one place of memory (expand), so it cannot be loaded; copy it (clone)",
    "View": "linear.weight: a view of the memory of part, so that each would overwrite the other; tie whole tensors "
    "(self.b = self.a), or copy one of them (clone)",
    "Transposed": "decoder.weight: a view of the memory of linear.weight, so that each would overwrite the other; tie "
    "whole tensors (self.b = self.a), or copy one of them (clone)",
    "Forgetful": f"{LINEAR}: another value after it was loaded than before; let load_state_dict (and its hooks) take "
    "exactly what state_dict returns",
}


@pytest.mark.parametrize("kind", SOUND)
def test_a_model_that_can_travel_has_no_issues(kind: str):
    assert not weights_issues(getattr(odd_models, kind)())


@pytest.mark.parametrize("name", ["mlp", "digits-cnn", "cnn8", "unet"])
def test_the_built_in_models_can_travel(name: str):
    assert not weights_issues(MODELS.build(name, "", num_classes=3, input_shape=(1, 32, 32)))


@pytest.mark.parametrize("kind", UNSOUND)
def test_what_cannot_travel_is_named_with_the_way_out(kind: str):
    [issue] = weights_issues(getattr(odd_models, kind)())
    assert issue.line == f"model: {UNSOUND[kind]}"


def test_all_that_is_wrong_is_said_at_once_and_long_lists_are_cut():
    model = nn.Sequential(nn.Linear(2, 2).bfloat16(), nn.Linear(2, 2).bfloat16(), odd_models.Complex())
    first, second = weights_issues(model)
    assert first.text.startswith("model: 0.weight, 0.bias, 1.weight and 1 more: bfloat16")
    assert second.text.startswith("model: 2.phase: complex64")


def test_a_run_with_such_a_model_is_refused_before_it_starts():
    with pytest.raises(ConfigError) as caught:
        check({"model.name": "tests.odd_models:Bfloat16", "partition.args": "alpha = 1.0"})
    assert caught.value.errors == [f"model: {UNSOUND['Bfloat16']}"]


def test_a_model_must_answer_for_one_example_too():
    with pytest.raises(ConfigError) as caught:
        check({"model.name": "tests.odd_models:Squeezing", "partition.args": "alpha = 1.0"})
    expected = "the model must return one score per class, (1, 10), got (10,)"
    assert caught.value.errors == [f"model 'tests.odd_models:Squeezing': {expected}"]


def test_clipping_and_noise_reach_a_tied_weight():
    private = replace(Settings(), privacy=PrivacySettings(mode="client-fixed"))
    assert not model_issues(private, odd_models.Tied())
    assert "running_mean" in model_issues(private, odd_models.Normed())[0].text


ONE_EXAMPLE: list[tuple[Any, int, list[int], str]] = [
    (odd_models.Normed(), 1, [9], "BatchNorm layers with one value per channel never learn"),
    (odd_models.Normed(), 8, [9, 1], ""),
    (odd_models.Normed(running=False), 8, [9, 17], ""),  # a last batch of one is left out
    (odd_models.Normed(running=False), 8, [9, 1], "choose a partition that gives every client at least 2 examples"),
    (odd_models.Normed(running=False), 1, [9], "set train.batch-size to at least 2"),
    (odd_models.OnePixel(groups=True), 8, [9, 16], "set train.drop-last = true, or another train.batch-size"),
    (odd_models.OnePixel(groups=True), 8, [16, 0], ""),
    (nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10)), 1, [9], ""),
]


@pytest.mark.parametrize(("model", "size", "counts", "said"), ONE_EXAMPLE)
def test_a_batch_of_one_example_is_tried_where_one_occurs(model: nn.Module, size: int, counts: list[int], said: str):
    found = one_example_issues(Digits(), model, TrainSettings(batch_size=size), counts)
    assert [said in issue.line for issue in found] == ([True] if said else [])
    assert all(issue.level == ("warning" if "never learn" in said else "error") for issue in found)
