"""Models as people write them: tied weights, state outside of the state dict, things that cannot travel."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PIXELS, CLASSES = 64, 10


class Odd(nn.Module):
    """A linear model of digits; subclasses add what is odd."""

    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__()
        self.linear = nn.Linear(PIXELS, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


class Tied(Odd):
    """Two names for one weight, as an autoencoder or a language model has."""

    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__(num_classes)
        self.first = nn.Linear(16, PIXELS, bias=False)
        self.embed = nn.Linear(PIXELS, 16, bias=False)
        self.back = nn.Linear(PIXELS, 16, bias=False)
        self.back.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.embed(x.flatten(1)))
        return super().forward(torch.tanh(hidden @ self.back.weight))


class Counter(Odd):
    """Counts its forward passes, and answers accordingly."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * (1 + 0.1 * self.calls)


class Running(Odd):
    """Keeps a running mean in a buffer that is not saved."""

    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__(num_classes)
        self.register_buffer("mean", torch.zeros(PIXELS), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * x.detach().mean(0)
        return super().forward(x - self.mean)


class LazyCache(Odd):
    """Makes a tensor in its first forward pass, of the parameters' kind and device, and multiplies by it ever after."""

    cache: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if self.cache is None:
            self.cache = torch.linspace(0.5, 1.5, PIXELS).to(x)
        return self.linear(F.relu(self.linear.weight.sum(0) * self.cache) * x)


class RandomFeatures(Odd):
    """Draws features when it is built that are not saved: they must be the same in every process."""

    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__(num_classes)
        self.register_buffer("features", torch.randn(PIXELS, PIXELS), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.tanh(x.flatten(1) @ self.features))


class Hooked(Odd):
    """Takes its hidden values from a hook that closes over ``self``, which no copy takes along."""

    hidden: Tensor

    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__(num_classes)
        self.linear.register_forward_hook(lambda module, inputs, output: setattr(self, "hidden", output))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        super().forward(x)
        return self.scale * self.hidden


class OldWeightNorm(Odd):
    """Weights that torch refuses to copy."""

    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__(num_classes)
        nn.utils.weight_norm(self.linear)


class Dropped(Odd):
    """Draws in evaluation mode too, as Monte Carlo dropout does."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), 0.5, training=True)


class ScalarAndEmpty(Odd):
    """Arrays without an axis and without an element."""

    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__(num_classes)
        self.scale = nn.Parameter(torch.ones(()))
        self.nothing = nn.Parameter(torch.zeros(0, 3))
        self.register_buffer("none", torch.zeros(0))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("flag", torch.tensor(True))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.count += len(x)
        return self.scale * super().forward(x)


class Bfloat16(Odd):
    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__(num_classes)
        self.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(torch.bfloat16))


class Lazy(Odd):
    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__(num_classes)
        self.linear = nn.LazyLinear(num_classes)


class ExtraState(Odd):
    def get_extra_state(self) -> Any:
        return {"calls": 3}

    def set_extra_state(self, state: Any) -> None:
        pass


class TensorExtraState(Odd):
    """Extra state that is a tensor travels as one."""

    seen = 0

    def get_extra_state(self) -> Any:
        return torch.tensor(self.seen)

    def set_extra_state(self, state: Any) -> None:
        self.seen = int(state)


class Complex(Odd):
    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__(num_classes)
        self.phase = nn.Parameter(torch.zeros(3, dtype=torch.complex64))


class Integers(Odd):
    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__(num_classes)
        self.codes = nn.Parameter(torch.arange(3), requires_grad=False)


class Sparse(Odd):
    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__(num_classes)
        self.register_buffer("graph", torch.eye(3).to_sparse())


class Meta(Odd):
    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__(num_classes)
        self.to("meta")


class Expanded(Odd):
    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__(num_classes)
        self.register_buffer("places", torch.arange(4).expand(3, 4))


class View(Odd):
    """A parameter that is a part of another one."""

    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__(num_classes)
        self.part = nn.Parameter(self.linear.weight.detach()[:2])


class Transposed(Odd):
    """A decoder that is given the encoder's weight, transposed."""

    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__(num_classes)
        self.decoder = nn.Linear(num_classes, PIXELS)
        self.decoder.weight = nn.Parameter(self.linear.weight.t())


class Forgetful(Odd):
    """Changes what is loaded into it."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict({name: 2 * value for name, value in state_dict.items()}, strict, assign)


class Squeezing(Odd):
    """Loses the batch's axis where there is one example."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze()


class Normed(Odd):
    """Normalises over the batch, one value per channel."""

    def __init__(self, num_classes: int = CLASSES, running: bool = True) -> None:
        super().__init__(num_classes)
        self.norm = nn.BatchNorm1d(PIXELS, track_running_stats=running)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(x.flatten(1)))


class OnePixel(Odd):
    """Normalises each channel of an image that is one pixel large."""

    def __init__(self, num_classes: int = CLASSES, groups: bool = False) -> None:
        super().__init__(num_classes)
        self.norm = nn.GroupNorm(PIXELS, PIXELS) if groups else nn.InstanceNorm2d(PIXELS)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(x.flatten(1)[:, :, None, None]))
