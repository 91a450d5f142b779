"""Weights: each tensor travels once and is loaded under all of its names."""

import numpy as np
import pytest
import torch
from torch import nn

from tasks.weights import buffer_names, load_arrays, model_arrays, tied_names, weights
from tests.odd_models import ScalarAndEmpty, Tied


class Buffers(nn.Module):
    """One mask in three places, as each block of a transformer registers it, and a weight that is a buffer too."""

    def __init__(self) -> None:
        super().__init__()
        mask = torch.tril(torch.ones(3, 3))
        self.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
        for block in self.blocks:
            block.register_buffer("mask", mask)
        self.register_buffer("copy", self.blocks[0].weight.data)


def test_tied_weights_travel_once_and_are_parameters():
    model = Tied()
    assert tied_names(model) == {"back.weight": "embed.weight"}
    assert set(model_arrays(model)) == {"linear.weight", "linear.bias", "first.weight", "embed.weight"}
    assert buffer_names(model) == ()


def test_a_weight_is_a_parameter_whichever_name_comes_first_in_the_state_dict():
    model = Buffers()
    assert tied_names(model) == {
        "blocks.0.weight": "copy",
        "blocks.1.mask": "blocks.0.mask",
        "blocks.2.mask": "blocks.0.mask",
    }
    assert buffer_names(model) == ("blocks.0.mask",)


def test_arrays_are_loaded_under_all_names():
    model, other = Tied(), Tied()
    load_arrays(other, {name: array.copy() for name, array in model_arrays(model).items()})
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert other.back.weight is other.embed.weight


def test_a_module_that_is_used_twice_travels_once():
    norm = nn.BatchNorm1d(2)
    model = nn.ModuleDict({"left": norm, "right": norm})
    assert set(weights(model)) == {f"left.{name}" for name in norm.state_dict()}
    assert set(buffer_names(model)) == {"left.running_mean", "left.running_var", "left.num_batches_tracked"}


def test_parameters_that_share_their_memory_are_tied_though_they_are_two_objects():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = nn.Parameter(model[0].weight.data)
    assert tied_names(model) == {"1.weight": "0.weight"}


def test_parts_of_one_memory_that_do_not_overlap_and_empty_tensors_are_not_tied():
    flat, model = torch.zeros(8), nn.Module()
    model.a, model.b = nn.Parameter(flat[:4]), nn.Parameter(flat[4:])
    assert not tied_names(model)
    assert not tied_names(ScalarAndEmpty())
    assert set(buffer_names(ScalarAndEmpty())) == {"none", "count", "flag"}


def test_arrays_of_another_model_are_refused():
    arrays = {name: array.copy() for name, array in model_arrays(Tied()).items()}
    del arrays["embed.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*embed\.weight"):
        load_arrays(Tied(), arrays)


def test_an_array_is_taken_under_the_names_that_came():
    model = Buffers()
    names = list(model_arrays(model))
    model.blocks[0].mask = model.blocks[0].mask.clone()  # as a move to a GPU does
    assert list(model_arrays(model, names)) == names
    assert len(model_arrays(model)) == len(names) + 1


@pytest.mark.filterwarnings("error")
def test_read_only_views_are_loaded_wherever_they_lie_in_the_bytes_that_came():
    model = nn.Linear(3, 2)
    values = np.arange(6, dtype=np.float32)
    odd = np.frombuffer(b"x" + values.tobytes(), np.uint8)[1:].view(np.float32).reshape(2, 3)
    assert not odd.flags.aligned
    load_arrays(model, {"weight": odd, "bias": np.frombuffer(values[:2].tobytes(), np.float32)})
    assert torch.equal(model.weight, torch.arange(6.0).reshape(2, 3))
    model.weight.data += 1
    assert odd[0, 0] == 0, "the model has a copy"
