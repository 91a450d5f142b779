"""Stacked network: several models of one architecture in one, each with its own weights and its own examples.

Parameters of C clients lie one behind the other, (C, ...), so that a step of all of them starts each operation once. A
chain of plain layers becomes batched matrix products and grouped convolutions; any other network goes through
``torch.func.vmap``.
"""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

Layer = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""``(parameters by name, values) -> values``, for all clients."""

ELEMENTWISE = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
    nn.Hardtanh,
    nn.Identity,
)
POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


class StackedModel:
    """The trained parameters of C copies of a model, and what the copies answer.

    Parameters
    ----------
    model
        What all of them start as; it stays as it is.
    count
        How many there are, C.

    Attributes
    ----------
    parameters
        One leaf (C, *shape) for each trained parameter of the model; what is frozen is shared.
    start
        The same parameters as they were, (1, *shape).
    """

    def __init__(self, model: nn.Module, count: int) -> None:
        template = copy.deepcopy(model).train()
        trained = {name: parameter for name, parameter in template.named_parameters() if parameter.requires_grad}
        self.names = tuple(trained)
        self.start = [parameter.detach().clone()[None] for parameter in trained.values()]
        self.parameters = [nn.Parameter(start.repeat(count, *[1] * (start.dim() - 1))) for start in self.start]
        self._layers = layers_of(template)
        self._call = vmap(lambda own, inputs: functional_call(template, own, (inputs,)))

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the answers (C, B, ...) to ``inputs`` (C, B, ...)."""
        named = dict(zip(self.names, self.parameters, strict=True))
        if self._layers is None:
            answers: Tensor = self._call(named, inputs)
            return answers
        for layer in self._layers:
            inputs = layer(named, inputs)
        return inputs

    def narrow(self, count: int) -> None:
        """Keep the first ``count`` models only; their parameters are new leaves in the same memory."""
        self.parameters = [nn.Parameter(parameter.detach()[:count]) for parameter in self.parameters]

    @torch.no_grad()
    def write(self, place: int, model: nn.Module) -> None:
        """Copy the parameters of one of the models into ``model``."""
        own = dict(model.named_parameters())
        for name, values in zip(self.names, self.parameters, strict=True):
            own[name].copy_(values[place])


def layers_of(model: nn.Module) -> list[Layer] | None:
    """Return the steps of a chain of plain layers for stacked values; None if it is another network.

    Values are (C, B, *shape), but (B, C x channels, height, width) from a convolution to the next flattening: so all
    clients' images go through one grouped convolution.
    """
    chain = _chain("", model)
    if chain is None or not all(parameter.requires_grad for parameter in model.parameters()):
        return None
    steps: list[Layer] = []
    as_images = False
    for name, layer in chain:
        kind = type(layer)
        if isinstance(layer, nn.Conv2d) and kind is nn.Conv2d and layer.padding_mode == "zeros":
            steps += [*([] if as_images else [_to_images]), _convolution(name, layer)]
            as_images = True
        elif isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1):
            steps.append(_images_flat if as_images else _flat)
            as_images = False
        elif kind is nn.Linear and not as_images:
            steps.append(_linear(name))
        elif kind in ELEMENTWISE or (kind in POOLING and as_images):
            steps.append(_plain(layer))
        else:
            return None
    return None if as_images else steps


def _chain(prefix: str, model: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """Return the layers of nested ``nn.Sequential`` in order, by name; None if something else happens in between."""
    hooks = (model._forward_hooks, model._forward_pre_hooks, model._backward_hooks, model._backward_pre_hooks)
    if any(hooks):
        return None
    if type(model) is not nn.Sequential:
        return [(prefix.rstrip("."), model)]
    found: list[tuple[str, nn.Module]] = []
    for name, layer in model.named_children():
        inner = _chain(f"{prefix}{name}.", layer)
        if inner is None:
            return None
        found += inner
    return found


def _to_images(named: Mapping[str, Tensor], values: Tensor) -> Tensor:
    if values.dim() != 5:
        raise ValueError(f"images (C, B, channels, height, width) expected, got {tuple(values.shape)}")
    images = values.transpose(0, 1).flatten(1, 2)
    return images.contiguous(memory_format=torch.channels_last)  # pooling is many times faster on a CPU


def _flat(named: Mapping[str, Tensor], values: Tensor) -> Tensor:
    return values.flatten(2)


def _images_flat(named: Mapping[str, Tensor], values: Tensor) -> Tensor:
    count = len(next(iter(named.values())))
    return values.reshape(len(values), count, -1).transpose(0, 1)


def _convolution(name: str, layer: nn.Conv2d) -> Layer:
    def step(named: Mapping[str, Tensor], values: Tensor) -> Tensor:
        weight, bias = named[f"{name}.weight"], named.get(f"{name}.bias")
        offset = None if bias is None else bias.flatten()
        many = weight.flatten(0, 1)
        stride, padding, dilation = layer.stride, layer.padding, layer.dilation
        return F.conv2d(values, many, offset, stride, padding, dilation, len(weight) * layer.groups)

    return step


def _linear(name: str) -> Layer:
    def step(named: Mapping[str, Tensor], values: Tensor) -> Tensor:
        weight, bias = named[f"{name}.weight"], named.get(f"{name}.bias")
        # In this order the gradient of the weights takes a quarter of the time on a CPU.
        answers = torch.bmm(weight, values.transpose(1, 2)).transpose(1, 2)
        return answers if bias is None else answers + bias[:, None]

    return step


def _plain(layer: nn.Module) -> Layer:
    return lambda named, values: layer(values)


def network_problem(model: nn.Module, inputs: Tensor) -> str:
    """Return why copies of ``model`` cannot be trained as one, from its answers to ``inputs`` (B, ...); empty if none.

    A copy is tried, so whatever the network is made of: the stacked answers must be those of the network itself, and
    an answer must not depend on the other examples of the batch, because short batches are filled up.
    """
    if problem := _declared_problem(model):
        return problem
    try:
        with torch.random.fork_rng(devices=[] if inputs.device.type == "cpu" else [inputs.device]), torch.no_grad():
            return _tried_problem(copy.deepcopy(model).train(), inputs)
    except Exception as error:  # whatever a network does that functions of torch cannot follow
        return f"the network cannot be stacked ({type(error).__name__}: {str(error).splitlines()[0]:.150})"


def _declared_problem(model: nn.Module) -> str:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if any(parameter.dtype is not torch.float32 for parameter in trained):
        return "the network has trained parameters that are not float32"
    if len({parameter.untyped_storage().data_ptr() for parameter in trained}) < len(trained):
        return "the network has parameters that are parts of others"
    named = {*dict(model.named_parameters(remove_duplicate=False)), *dict(model.named_buffers(remove_duplicate=False))}
    if any(name not in named for name in model.state_dict()):
        return "the network keeps more than parameters and buffers"
    return ""


def _tried_problem(model: nn.Module, inputs: Tensor) -> str:
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for parameter in model.parameters():
        if parameter.requires_grad:  # a network that starts at zero would answer the same to everything
            parameter.add_(0.1 * torch.randn_like(parameter))
    draws = torch.get_rng_state()
    expected = model(inputs)
    if not torch.equal(draws, torch.get_rng_state()):
        return "the network draws at random, such as dropout"
    if not all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers()):
        return "the network keeps statistics of its inputs, such as BatchNorm"
    first = model(inputs[:1])
    if first.shape != expected[:1].shape or not _are_near(first, expected[:1]):
        return "the network's answer to an example depends on the other examples"
    answers = StackedModel(model, 2)(torch.stack([inputs, inputs.flip(0)]))
    if not _are_near(answers, torch.stack([expected, expected.flip(0)])):
        return "the network answers otherwise when it is stacked"
    return ""


def _are_near(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-3, atol=1e-4)
